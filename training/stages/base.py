"""What the engine asks of a stage: networks that take turns, losses for a batch, pictures to look at, and the files the nodes load."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from ..data import Batch
from ..latents import Autoencoder
from ..prompts import PromptCache
from ..recipe import Strict

Turns = dict[str, tuple[str, ...]]


class Stage(Protocol):
    """One training stage of one paper.

    turns: the names of its losses by turn, in the order in which turns are taken; a name belongs to one turn. networks: what each
    turn trains; no two share a parameter. frozen: what else must be on the device. vae: what banks of crops are encoded with, None
    for a stage that trains it. captioned: keeps the embeddings of captions, None for a stage that is told none.
    """

    Settings: ClassVar[type[Strict]]
    turns: ClassVar[Turns]
    networks: dict[str, nn.Module]
    frozen: dict[str, nn.Module]
    vae: Autoencoder | None

    @property
    def captioned(self) -> PromptCache | None: ...

    def __init__(self, settings: Any) -> None: ...

    def losses(self, turn: str, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        """Unweighted scalar losses of a turn, those named in `wanted`.

        model: networks[turn], possibly wrapped, called through its forward alone; only its parameters require gradients now. memory:
        tensors that earlier turns of this batch left for later ones. Random numbers come from torch's own generator, which the
        engine seeds.
        """

    def output(self, batch: Batch) -> dict[str, Tensor]:
        """Pictures [B, 3, H, W] in 0..1 for the validation grid by column title, the target under `high_quality`."""

    def export(self, folder: Path, card: str) -> list[Path]:
        """Write what the nodes load and its model card; returns the files. The networks hold their averaged weights."""
