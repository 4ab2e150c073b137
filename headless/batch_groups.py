"""Pictures of one size through one run of a graph's networks, where each comes out as if it were alone.

A network is called with as many rows as the host says, copies where there are fewer: on a GPU several pictures cost what one does.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from PIL import Image

from ..core.graph.executor import ExecutionResult
from ..core.graph.prompt_graph import sources
from ..core.graph.registry import Registry
from ..core.imaging.photo import Photo
from ..core.imaging.reading import ORIENTATION
from .changes import Prompt

# The node whose photo can be read before the graph runs.
LOADS_APART = "KintsugiLoadPhoto"
# Nodes whose result for a picture depends on no other picture of its batch, and which give their networks all of a batch at once.
EACH_ALONE = frozenset(
    {
        "KintsugiRestoreOneStep", "KintsugiOneStepLatent", "KintsugiEncode", "KintsugiDecode", "KintsugiPreRestore", "KintsugiColorFix",
        "ImageScale", "ImageScaleBy", "ImageInvert",
    }
)  # fmt: skip
PARTING = frozenset({"IMAGE", "MASK"})


def parting_nodes(prompt: Prompt, registry: Registry, loader: str) -> tuple[str, ...]:
    """The last nodes that may have several pictures at once: what follows, as saving and measuring, has one after the other.

    None where the graph does not allow it.
    """
    if prompt[loader]["class_type"] != LOADS_APART:
        return ()
    fed = _fed_by(prompt, loader)
    together: set[str] = set()
    while more := {node for node in fed - together if _may_join(prompt, node, fed, together | {loader})}:
        together |= more
    last = tuple(node for node in prompt if node in together and any(node in sources(prompt[after]) for after in fed - together))
    parts = all(PARTING.issuperset(registry.definition(prompt[node]["class_type"]).output_types) for node in last)
    return last if parts else ()


def _fed_by(prompt: Prompt, loader: str) -> set[str]:
    """All nodes that come after the loader."""
    fed: set[str] = set()
    while more := {node for node in prompt if node not in fed and not {loader, *fed}.isdisjoint(sources(prompt[node]))}:
        fed |= more
    return fed


def _may_join(prompt: Prompt, node: str, fed: set[str], together: set[str]) -> bool:
    needed = (source for source in sources(prompt[node]) if source in fed or source in together)
    return prompt[node]["class_type"] in EACH_ALONE and all(source in together for source in needed)


def values_of_all(photos: Sequence[Photo]) -> list[Any]:
    """What Load Photo would give of all these photos, which have one size: pictures [B, H, W, 3], masks [B, H, W], no file's details."""
    masks = [torch.zeros(photo.picture.shape[:3]) if photo.alpha is None else 1 - photo.alpha for photo in photos]
    return [torch.cat([photo.picture for photo in photos]), torch.cat(masks), None]


def parted(result: ExecutionResult, nodes: Iterable[str], index: int) -> dict[str, list[Any]]:
    """What the nodes gave for one picture."""
    return {node: [slot[0][index : index + 1] for slot in result.values[node]] for node in nodes}


def in_groups(pictures: Iterable[tuple[Any, bytes]], largest: int) -> Iterator[list[tuple[Any, bytes]]]:
    """Neighbours of one size together, at most so many; a picture whose head cannot be read is alone."""
    group: list[tuple[Any, bytes]] = []
    size: object = None
    for picture in pictures:
        own = _size(picture[1]) if largest > 1 else None
        if group and (own is None or own != size or len(group) == largest):
            yield group
            group = []
        group.append(picture)
        size = own
    if group:
        yield group


def _size(content: bytes) -> object:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.size, image.getexif().get(ORIENTATION)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
