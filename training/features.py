"""Features of a network's inner blocks, picked up while it is called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Features = dict[str, Tensor]


@contextmanager
def features_of(network: nn.Module, blocks: Iterable[str]) -> Iterator[Features]:
    """Inside the block every call of the network leaves what these of its blocks gave, by dotted name: of a U-Net's down block, which
    also gives what its up blocks will need, the features [B, C, h, w] after its downsampler.

    Blocks are those of the network itself, so that features of an Adapted one are had by naming those of its plain network.
    """
    found: Features = {}
    with ExitStack() as undo:
        for name in blocks:
            undo.callback(_kept(network.get_submodule(name), name, found).remove)
        yield found


def _kept(block: nn.Module, name: str, found: Features) -> RemovableHandle:
    def keep(module: nn.Module, inputs: tuple[object, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        found[name] = output[0] if isinstance(output, tuple) else output

    return block.register_forward_hook(keep)
