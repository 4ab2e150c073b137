from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kintsugi.core.errors import BadValueError
from kintsugi.core.imaging.painted_parts import Box, painted_boxes
from kintsugi.core.imaging.regions import SHAPES, Cropping, Region, Shape, crop_regions, paste_regions
from torch import Tensor

PLAIN = Cropping(padding=0, multiple=1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def mask_with(height: int, width: int, *boxes: tuple[int, int, int, int]) -> Tensor:
    """[1, height, width], 1 inside the boxes (top, left, bottom, right)."""
    mask = torch.zeros(1, height, width)
    for top, left, bottom, right in boxes:
        mask[:, top:bottom, left:right] = 1
    return mask


def boxes_of(region: Region) -> list[Box]:
    return [place.box for place in region.places]


sides = st.integers(1, 40)
croppings = st.builds(
    Cropping,
    padding=st.floats(0, 2),
    enlarge_to=st.just(0),
    square=st.booleans(),
    multiple=st.integers(1, 24),
    separate=st.booleans(),
)


@st.composite
def pictures_and_masks(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Pictures of any size with a mask each: speckled, soft, filled or empty."""
    height, width, count = draw(sides), draw(sides), draw(st.integers(1, 3))
    seed, share = draw(st.integers(0, 99)), draw(st.sampled_from([0.0, 0.01, 0.1, 0.6, 1.0]))
    painted = noise(count, height, width, seed=seed) < share
    hardness = noise(count, height, width, seed=seed + 100) if draw(st.booleans()) else torch.ones(count, height, width)
    return noise(count, height, width, 3, seed=seed), painted * hardness


@given(pictures_and_masks(), croppings, st.integers(0, 9), st.sampled_from(SHAPES))
def test_pasting_the_unchanged_crop_changes_no_bit(given_: tuple[Tensor, Tensor], cropping: Cropping, feather: int, shape: Shape) -> None:
    pictures, masks = given_
    crops, region = crop_regions(pictures, masks, cropping)
    assert torch.equal(paste_regions(pictures, crops, region, feather, shape), pictures)


@given(pictures_and_masks(), croppings, st.integers(0, 9), st.sampled_from(SHAPES))
def test_nothing_outside_the_places_changes(given_: tuple[Tensor, Tensor], cropping: Cropping, feather: int, shape: Shape) -> None:
    pictures, masks = given_
    crops, region = crop_regions(pictures, masks, cropping)
    pasted = paste_regions(pictures, 1 - crops, region, feather, shape)
    inside = torch.zeros(pictures.shape[:3], dtype=torch.bool)
    for place in region.places:
        inside[place.picture, place.box.top : place.box.bottom, place.box.left : place.box.right] = True
    assert torch.equal(pasted[~inside], pictures[~inside])


@given(pictures_and_masks(), croppings)
def test_every_painted_pixel_is_in_a_crop_of_the_common_size_inside_the_picture(given_: tuple[Tensor, Tensor], cropping: Cropping) -> None:
    pictures, masks = given_
    crops, region = crop_regions(pictures, masks, cropping)
    covered = torch.zeros(pictures.shape[:3])
    for crop, place in zip(crops, region.places, strict=True):
        box = place.box
        assert 0 <= box.top < box.bottom <= pictures.shape[1] and 0 <= box.left < box.right <= pictures.shape[2]
        assert crop.shape[:2] == place.mask.shape == (box.height, box.width) == crops.shape[1:3]
        assert torch.equal(crop, pictures[place.picture, box.top : box.bottom, box.left : box.right])
        covered[place.picture, box.top : box.bottom, box.left : box.right] += place.mask
    painted = masks > 0.05
    assert torch.equal(covered[painted].clamp(max=1) > 0, torch.ones(int(painted.sum()), dtype=torch.bool))


def test_hard_edge_replaces_exactly_what_was_painted() -> None:
    picture, mask = noise(1, 40, 50, 3), mask_with(40, 50, (10, 20, 18, 26))
    crops, region = crop_regions(picture, mask, Cropping(padding=0.5, multiple=8))
    pasted = paste_regions(picture, torch.ones_like(crops), region, 0)
    assert torch.equal(pasted, torch.where(mask[..., None] == 1, torch.ones(()), picture))


def test_the_fade_falls_from_the_painted_edge_to_nothing_within_the_feather() -> None:
    picture, mask = torch.zeros(1, 60, 60, 3), mask_with(60, 60, (20, 20, 40, 40))
    crops, region = crop_regions(picture, mask, Cropping(padding=0.75, multiple=1))
    row = paste_regions(picture, torch.ones_like(crops), region, 8)[0, 30, :, 0]
    assert torch.equal(row[20:40], torch.ones(20)), "what was painted is replaced wholly"
    assert (row[40:48].diff() < 0).all() and 0 < row[47] < row[40] < 1
    assert not row[48:].any() and not row[:12].any()


def test_a_box_fades_inside_itself_but_not_at_the_edge_of_the_picture() -> None:
    picture, mask = torch.zeros(1, 30, 40, 3), mask_with(30, 40, (0, 10, 20, 30))
    crops, region = crop_regions(picture, mask, PLAIN)
    pasted = paste_regions(picture, torch.ones_like(crops), region, 4, "box")[0, :, :, 0]
    assert torch.equal(pasted[0, 10:30], torch.tensor([0.2, 0.4, 0.6, 0.8, *[1] * 12, 0.8, 0.6, 0.4, 0.2]))
    assert torch.allclose(pasted[:20, 20], torch.tensor([*[1] * 16, 0.8, 0.6, 0.4, 0.2]))


@pytest.mark.parametrize(
    ("cropping", "expected"),
    [
        (PLAIN, Box(20, 30, 40, 70)),
        (Cropping(padding=0.25, multiple=1), Box(10, 20, 50, 80)),
        (Cropping(padding=0, multiple=16), Box(14, 26, 46, 74)),
        (Cropping(padding=0, multiple=1, square=True), Box(10, 30, 50, 70)),
        (Cropping(padding=4, multiple=16), Box(0, 0, 100, 120)),
    ],
)
def test_the_box_is_padded_squared_and_rounded_inside_the_picture(cropping: Cropping, expected: Box) -> None:
    _, region = crop_regions(noise(1, 100, 120, 3), mask_with(100, 120, (20, 30, 40, 70)), cropping)
    assert boxes_of(region) == [expected]


def test_a_crop_at_the_corner_is_shifted_rather_than_cut() -> None:
    _, region = crop_regions(noise(1, 64, 64, 3), mask_with(64, 64, (0, 60, 4, 64)), Cropping(padding=0, multiple=16))
    assert boxes_of(region) == [Box(0, 48, 16, 64)]


def test_a_small_crop_comes_out_enlarged_and_is_scaled_back() -> None:
    picture = torch.linspace(0, 1, 80)[None, None, :, None].expand(1, 60, 80, 3)
    crops, region = crop_regions(picture, mask_with(60, 80, (10, 10, 42, 58)), Cropping(padding=0, enlarge_to=192))
    assert crops.shape == (1, 128, 192, 3)
    pasted = paste_regions(picture, crops, region, 4)
    assert pasted.shape == picture.shape and (pasted - picture).abs().max() < 0.01
    larger, _ = crop_regions(picture, mask_with(60, 80, (10, 10, 42, 58)), Cropping(padding=0, enlarge_to=40))
    assert larger.shape == (1, 32, 48, 3), "a crop that is large enough keeps its size"


def test_crops_may_be_pasted_into_the_enlarged_picture() -> None:
    picture, mask = torch.zeros(1, 30, 40, 3), mask_with(30, 40, (10, 20, 20, 30))
    crops, region = crop_regions(picture, mask, PLAIN)
    pasted = paste_regions(torch.zeros(1, 60, 80, 3), torch.ones_like(crops), region, 0)
    assert torch.allclose(pasted[..., 0], mask_with(60, 80, (20, 40, 40, 60)), atol=1e-6)


def test_parts_that_stand_alone_are_crops_of_one_size() -> None:
    picture, mask = noise(1, 60, 200, 3), mask_with(60, 200, (20, 10, 40, 20), (10, 150, 30, 182))
    crops, region = crop_regions(picture, mask, Cropping(padding=0, multiple=1, separate=True))
    assert boxes_of(region) == [Box(10, 150, 30, 182), Box(20, 0, 40, 32)] and crops.shape == (2, 20, 32, 3)
    pasted = paste_regions(picture, torch.ones_like(crops), region, 0)
    assert torch.equal(pasted, torch.where(mask[..., None] == 1, torch.ones(()), picture))


def test_strokes_whose_padded_boxes_meet_are_one_part() -> None:
    mask = mask_with(100, 300, (40, 20, 60, 40), (40, 48, 60, 70), (10, 200, 90, 280))[0]
    assert painted_boxes(mask, 0.2, separate=True) == [Box(0, 184, 100, 296), Box(30, 10, 70, 80)]
    assert painted_boxes(mask, 0, separate=False) == [Box(10, 20, 90, 280)]


def test_a_speckled_mask_ends_soon_and_is_covered() -> None:
    mask = (noise(1500, 2000) < 0.002).float()
    boxes = painted_boxes(mask, 0.1, separate=True)
    assert boxes and sum(box.height * box.width for box in boxes) <= mask.numel() * 2


def test_the_noise_of_a_compressed_mask_is_not_painted() -> None:
    mask = mask_with(50, 50, (10, 10, 20, 20))[0] + 0.03 * noise(50, 50)
    assert painted_boxes(mask, 0, separate=False) == [Box(10, 10, 20, 20)]


def test_one_mask_holds_for_every_picture_of_a_batch() -> None:
    crops, region = crop_regions(noise(3, 40, 40, 3), mask_with(40, 40, (4, 4, 20, 20)), PLAIN)
    assert crops.shape == (3, 16, 16, 3) and [place.picture for place in region.places] == [0, 1, 2]


def test_masks_of_their_own_give_crops_of_the_largest_size_and_an_empty_one_gives_none() -> None:
    pictures = noise(3, 40, 50, 3)
    masks = torch.cat([mask_with(40, 50, (0, 0, 10, 20)), mask_with(40, 50), mask_with(40, 50, (20, 44, 36, 50))])
    crops, region = crop_regions(pictures, masks, PLAIN)
    assert crops.shape == (2, 16, 20, 3) and boxes_of(region) == [Box(0, 0, 16, 20), Box(20, 30, 36, 50)]
    pasted = paste_regions(pictures, torch.ones_like(crops), region, 3)
    assert torch.equal(pasted[1], pictures[1]) and (pasted[2, 20:36, 44:] == 1).any()


def test_several_masks_of_one_picture_are_all_pasted_into_it() -> None:
    picture, first, second = noise(1, 40, 40, 3), mask_with(40, 40, (0, 0, 8, 8)), mask_with(40, 40, (20, 20, 28, 28))
    crops, region = crop_regions(picture, torch.cat([first, second]), PLAIN)
    pasted = paste_regions(picture, torch.ones_like(crops), region, 0)
    assert len(crops) == 2 and torch.equal(pasted, torch.where((first + second)[..., None] == 1, torch.ones(()), picture))


@pytest.mark.parametrize("size", [(30, 40), (64, 64)])
def test_where_nothing_is_painted_the_whole_picture_is_the_region(size: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    pictures = noise(2, 30, 40, 3)
    with caplog.at_level(logging.INFO, "kintsugi"):
        crops, region = crop_regions(pictures, torch.zeros(1, *size), Cropping())
    assert "whole picture" in caplog.text and torch.equal(crops, pictures)
    assert torch.equal(paste_regions(pictures, 1 - pictures, region, 8), 1 - pictures)


def test_masks_and_crops_that_do_not_belong_to_the_pictures_are_refused() -> None:
    pictures, mask = noise(3, 30, 40, 3), mask_with(30, 40, (4, 4, 20, 20))
    crops, region = crop_regions(pictures, mask, PLAIN)
    with pytest.raises(BadValueError, match="mask is 64 x 64 pixels and the picture 40 x 30"):
        crop_regions(pictures, torch.ones(1, 64, 64), PLAIN)
    with pytest.raises(BadValueError, match="2 masks for 3 pictures"):
        crop_regions(pictures, mask.repeat(2, 1, 1), PLAIN)
    with pytest.raises(BadValueError, match="2 restored crops and 3 places"):
        paste_regions(pictures, crops[:2], region, 0)
    with pytest.raises(BadValueError, match="1 pictures, and the crops come from 3"):
        paste_regions(pictures[:1], crops, region, 0)
    with pytest.raises(BadValueError, match="40 x 40 pixels, and the crops come from one of 40 x 30"):
        paste_regions(noise(3, 40, 40, 3), crops, region, 0)


def test_neither_pictures_nor_masks_are_written_to() -> None:
    picture, mask = noise(1, 40, 40, 3), mask_with(40, 40, (4, 4, 20, 20))
    copies = picture.clone(), mask.clone()
    crops, region = crop_regions(picture, mask, Cropping())
    paste_regions(picture, torch.ones_like(crops), region, 4)
    assert torch.equal(picture, copies[0]) and torch.equal(mask, copies[1])
