"""Cut out the parts of pictures that a mask marks, and put them back restored: everything else keeps its pixels to the bit."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadValueError
from .painted_parts import Box, painted_boxes
from .resize import resize

log = logging.getLogger("kintsugi")

Shape = Literal["painted", "box"]
SHAPES: tuple[Shape, ...] = get_args(Shape)


@dataclass(frozen=True)
class Cropping:
    """How much around the painted part is cut out, and how large it comes out.

    padding: share of the painted box's longer side that is added on every side. enlarge_to: a crop whose longer side is
    smaller comes out enlarged to this many pixels; 0 never. square: grow the shorter side to the longer one. multiple: both
    sides are multiples of this many pixels, except where the picture ends first. separate: parts that stand alone are crops
    of their own.
    """

    padding: float = 0.25
    enlarge_to: int = 0
    square: bool = False
    multiple: int = 16
    separate: bool = False


@dataclass(frozen=True)
class Place:
    """Where one crop came from: which picture of the batch, its box there, and its own mask [h, w] in that box."""

    picture: int
    box: Box
    mask: Tensor


@dataclass(frozen=True)
class Region:
    """What paste_regions() needs to know of crop_regions(): the size of the pictures, how many they were, and the places."""

    pictures: int
    height: int
    width: int
    places: tuple[Place, ...]


def crop_regions(pictures: Tensor, masks: Tensor, cropping: Cropping) -> tuple[Tensor, Region]:
    """Crops [N, h, w, C] of pictures [B, H, W, C] around what masks [1 or B, H, W] (values 0..1) mark, and where they were.

    A single mask holds for every picture; a single picture may have several masks. All crops have the size of the largest,
    and each stays inside its picture. A picture whose mask is empty has no crop, unless all are: then the whole pictures are
    the region, because LoadImage and KintsugiLoadPhoto give an empty mask (of any size) where none was painted.
    Raises BadValueError for masks of another size or number than the pictures.
    """
    count, height, width, _ = pictures.shape
    found = [(picture, mask, box) for picture, mask in _pairs(pictures, masks) for box in _boxes(mask, cropping)]
    if not found:
        log.info("No mask is painted: the whole picture is the region.")
        everything = torch.ones(height, width)
        found = [(picture, everything, Box(0, 0, height, width)) for picture in range(count)]
    size = _common_size([box for _, _, box in found], cropping, height, width)
    places = tuple(_place(picture, mask, box, size) for picture, mask, box in found)
    crops = torch.stack([_within(pictures[place.picture], place.box) for place in places])
    return _enlarged(crops, cropping), Region(count, height, width, places)


def paste_regions(pictures: Tensor, restored: Tensor, region: Region, feather: int, shape: Shape = "painted") -> Tensor:
    """pictures [B, H, W, C] with restored [N, h, w, C] where its crops came from; a crop of another size is scaled back.

    The pictures may be larger or smaller than those the crops came from: the places move and grow with them.
    feather: pixels of the result over which the two fade into each other; 0 is a hard edge. shape: what is replaced is what
    was painted, and the fade lies around it, or the whole box, and the fade lies inside it. Where nothing is replaced the
    pixels stay to the bit, and pasting an unchanged crop changes none.
    Raises BadValueError when the numbers of crops or pictures, or the shape of the pictures, are not those of the region.
    """
    _require_fitting(pictures, restored, region)
    height, width = pictures.shape[1:3]
    pasted = pictures.clone()
    for crop, place in zip(restored.to(pictures), region.places, strict=True):
        box = _scaled(place.box, height / region.height, width / region.width)
        target = _within(pasted[place.picture], box)
        mask = resize(place.mask.to(pictures)[None, None], box.height, box.width, "bilinear")
        weights = _fade_at_box(box, height, width, feather).to(pictures)
        if shape == "painted":
            weights = torch.minimum(weights, _fade_around(mask, feather))
        target.copy_(torch.lerp(target, _resized(crop[None], box.height, box.width)[0], weights[0, 0, :, :, None]))
    return pasted


def _pairs(pictures: Tensor, masks: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(index of the picture, mask [H, W] in 0..1 on the CPU); nothing when all masks are empty, whatever their size."""
    count, height, width, _ = pictures.shape
    planes = masks.detach().reshape(-1, *masks.shape[-2:]).float().cpu().clamp(0, 1)
    if not planes.any():
        return
    if planes.shape[1:] != (height, width):
        raise BadValueError(
            f"the mask is {planes.shape[2]} x {planes.shape[1]} pixels and the picture {width} x {height}.",
            way_out="Paint the mask on this very picture, or resize the mask like the picture.",
        )
    if count != 1 and len(planes) not in (1, count):
        raise BadValueError(f"there are {len(planes)} masks for {count} pictures.", way_out="Give one mask, or one for each picture.")
    for index in range(max(count, len(planes))):
        yield min(index, count - 1), planes[min(index, len(planes) - 1)]


def _boxes(mask: Tensor, cropping: Cropping) -> list[Box]:
    return painted_boxes(mask, cropping.padding, cropping.separate)


def _common_size(boxes: list[Box], cropping: Cropping, height: int, width: int) -> tuple[int, int]:
    """(height, width) that holds every box, inside pictures of that size."""
    tallest, widest = max(box.height for box in boxes), max(box.width for box in boxes)
    if cropping.square:
        tallest = widest = max(tallest, widest)
    multiple = cropping.multiple
    return min(height, -(-tallest // multiple) * multiple), min(width, -(-widest // multiple) * multiple)


def _place(picture: int, mask: Tensor, box: Box, size: tuple[int, int]) -> Place:
    """The box grown to that size about its middle, shifted into the picture; the mask counts inside the original box alone."""
    height, width = size
    top = min(max(0, box.top - (height - box.height) // 2), mask.shape[0] - height)
    left = min(max(0, box.left - (width - box.width) // 2), mask.shape[1] - width)
    own = torch.zeros_like(mask)
    _within(own, box).copy_(_within(mask, box))
    grown = Box(top, left, top + height, left + width)
    return Place(picture, grown, _within(own, grown).clone())


def _within(plane: Tensor, box: Box) -> Tensor:
    """The box's view of [H, W, ...]."""
    return plane[box.top : box.bottom, box.left : box.right]


def _enlarged(crops: Tensor, cropping: Cropping) -> Tensor:
    height, width = crops.shape[1:3]
    if max(height, width) >= cropping.enlarge_to:
        return crops
    factor = cropping.enlarge_to / max(height, width)
    sides = (max(1, round(side * factor / cropping.multiple)) * cropping.multiple for side in (height, width))
    return _resized(crops, *sides)


def _resized(pictures: Tensor, height: int, width: int) -> Tensor:
    """[B, H, W, C] at another size, in 0..1; untouched at its own."""
    if pictures.shape[1:3] == (height, width):
        return pictures
    return resize(pictures.movedim(3, 1), height, width, "bicubic").clamp(0, 1).movedim(1, 3)


def _require_fitting(pictures: Tensor, restored: Tensor, region: Region) -> None:
    count, height, width, _ = pictures.shape
    if len(restored) != len(region.places):
        raise BadValueError(
            f"there are {len(restored)} restored crops and {len(region.places)} places for them.",
            way_out="Connect the region of the node that cut these crops out, and restore all of them.",
        )
    if count != region.pictures:
        raise BadValueError(
            f"there are {count} pictures, and the crops come from {region.pictures}.",
            way_out="Connect the pictures that the crops were cut from.",
        )
    if abs(height * region.width - width * region.height) > max(region.height, region.width):
        raise BadValueError(
            f"the picture is {width} x {height} pixels, and the crops come from one of {region.width} x {region.height}.",
            way_out="Connect the picture that the crops were cut from, at any size but with the same sides' ratio.",
        )


def _scaled(box: Box, down: float, across: float) -> Box:
    return Box(round(box.top * down), round(box.left * across), round(box.bottom * down), round(box.right * across))


def _fade_at_box(box: Box, height: int, width: int, feather: int) -> Tensor:
    """Weights [1, 1, h, w] that rise from the box's edges; an edge that is the picture's own does not fade."""
    rows = _rise(box.height, feather, box.top > 0, box.bottom < height)
    columns = _rise(box.width, feather, box.left > 0, box.right < width)
    return (rows[:, None] * columns)[None, None]


def _rise(count: int, feather: int, at_start: bool, at_end: bool) -> Tensor:
    steps = torch.arange(1, count + 1) / (feather + 1)
    whole = torch.ones(count)
    return torch.minimum(steps if at_start else whole, steps.flip(0) if at_end else whole).clamp(max=1)


def _fade_around(mask: Tensor, feather: int) -> Tensor:
    """mask [1, 1, h, w], falling from its edge to 0 within `feather` pixels: grown by half of them, then blurred by half."""
    for radius, pool in ((feather - feather // 2, F.max_pool2d), (feather // 2, F.avg_pool2d)):
        padded = F.pad(mask, (radius, radius, radius, radius), mode="replicate")
        mask = pool(pool(padded, (2 * radius + 1, 1), stride=1), (1, 2 * radius + 1), stride=1)
    return mask
