"""Pictures on their way between a Python caller and a graph: no file on either side where none was asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..core.errors import BadValueError
from ..core.folders import Folders
from ..core.graph.executor import ExecutionResult
from ..core.graph.node_inputs import NodeContext, calls, gather_inputs
from ..core.graph.prompt_graph import is_link
from ..core.graph.registry import Registry
from ..core.imaging.alpha import alpha_of
from ..core.imaging.photo import Photo, PhotoDetails
from ..core.imaging.pillow import photo_of, pillow_of
from ..core.imaging.reading import read_photo
from ..core.runtime import require_finite
from ..nodes.sockets import PHOTO
from .changes import Prompt, chosen_loader, picture_inputs

# A path, a Pillow picture, or a tensor [B, H, W, 3] in 0..1.
Picture = str | os.PathLike[str] | Image.Image | Tensor


def by_node(prompt: Prompt, registry: Registry, inputs: Mapping[str, Picture] | Picture | None) -> dict[str, Picture]:
    """{loading node: its picture}; a picture alone is that of the only one. BadValueError for a node that loads none."""
    if inputs is None:
        return {}
    loaders = picture_inputs(prompt, registry)
    pictures = inputs if isinstance(inputs, Mapping) else {"": inputs}
    return {chosen_loader(prompt, loaders, name): picture for name, picture in pictures.items()}


def files_among(pictures: Mapping[str, Picture]) -> dict[str, Path]:
    """Those that are to be read from a file."""
    return {node: Path(picture) for node, picture in pictures.items() if isinstance(picture, str | os.PathLike)}


def values_among(prompt: Prompt, registry: Registry, pictures: Mapping[str, Picture]) -> dict[str, list[Any]]:
    """What the loading nodes of the others would give, a value per output."""
    return {
        node: _loaded(picture, registry.definition(prompt[node]["class_type"]).output_types)
        for node, picture in pictures.items()
        if not isinstance(picture, str | os.PathLike)
    }


def _loaded(picture: Image.Image | Tensor, outputs: tuple[str, ...]) -> list[Any]:
    photo = _photo(picture)
    mask = torch.zeros(photo.picture.shape[:3]) if photo.alpha is None else 1 - photo.alpha
    values = {"IMAGE": photo.picture, "MASK": mask, PHOTO: photo.details}
    return [values[kind] for kind in outputs]


def _photo(picture: Image.Image | Tensor) -> Photo:
    if isinstance(picture, Image.Image):
        return photo_of(picture)
    if not isinstance(picture, Tensor):
        raise BadValueError(
            f"{type(picture).__name__} is no picture.", way_out="Give a path, a PIL.Image, or a tensor [B, H, W, 3] in 0..1."
        )
    if picture.ndim != 4 or picture.shape[3] != 3 or 0 in picture.shape:
        raise BadValueError(
            f"a tensor has the shape {list(picture.shape)}, expected [B, H, W, 3].", way_out="Bring its axes into that order."
        )
    require_finite(picture, "the tensor")
    low, high = (float(value) for value in picture.aminmax())
    if low < 0 or high > 1:
        raise BadValueError(f"a tensor has values from {low:g} to {high:g}, expected 0 to 1.", way_out="Divide by 255, or clamp them.")
    return Photo(picture.detach().to("cpu", torch.float32))


def nodes_that_save(prompt: Prompt, registry: Registry) -> list[str]:
    """Output nodes that take `images`, as all do that save or preview: what they get is what the workflow makes."""
    return [
        node
        for node, entry in prompt.items()
        if registry.definition(entry["class_type"]).is_output and is_link(entry["inputs"].get("images"))
    ]


def result_pictures(prompt: Prompt, registry: Registry, result: ExecutionResult, folders: Folders, as_tensors: bool) -> list[Any]:
    """Every picture of the output nodes, in the order of the nodes: what those that save were given, and what others wrote of their own."""
    saving = nodes_that_save(prompt, registry)
    pictures: list[Any] = []
    for node in prompt:
        if node in saving:
            for arguments in _calls_of(node, prompt, registry, result):
                pictures += [_own(arguments["images"])] if as_tensors else _as_pillow(**arguments)
        else:
            for path in _shown(result.ui.get(node, {}), folders):
                photo = read_photo(path)
                pictures.append(photo.picture if as_tensors else pillow_of(photo.picture, photo.alpha, photo.details))
    return pictures


def _calls_of(node: str, prompt: Prompt, registry: Registry, result: ExecutionResult) -> Iterator[dict[str, Any]]:
    definition = registry.definition(prompt[node]["class_type"])
    context = NodeContext(result.graph, {})
    inputs, _ = gather_inputs(node, prompt[node], definition, context, lambda source, slot: result.values[source][slot])
    return calls(inputs, definition.input_is_list)


def _own(pictures: Tensor) -> Tensor:
    """A copy that the caller may change: the graph remembers its own, and made it in inference mode."""
    return pictures.to("cpu", torch.float32, copy=True)


def _as_pillow(
    images: Tensor, mask: Tensor | None = None, photo: PhotoDetails | None = None, keep_metadata: bool = True, **_: Any
) -> list[Image.Image]:
    """Each picture with the transparency, profile and EXIF that Save Photo would write."""
    details = photo or PhotoDetails()
    if not keep_metadata:
        details = replace(details, icc=None, exif=None)
    height, width = images.shape[1:3]
    return [pillow_of(image, alpha_of(mask, index, height, width), details) for index, image in enumerate(images)]


def _shown(ui: Mapping[str, list[Any]], folders: Folders) -> list[Path]:
    return [folders.base(entry["type"]) / entry["subfolder"] / entry["filename"] for entry in ui.get("images", [])]
