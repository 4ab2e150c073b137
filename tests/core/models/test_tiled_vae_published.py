"""The published tiled VAE's plan, and what it is for one tile; its numbers are held by tests/parity_cases/tsd_sr.py."""

from __future__ import annotations

from dataclasses import astuple

import pytest
import torch
from diffusers import AutoencoderKL
from kintsugi.core.models.mini import build_vae, vae_config
from kintsugi.core.models.tiled_vae_published import Box, decode_published, encode_published, plan_decode, plan_encode


@pytest.fixture
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return build_vae({**vae_config((8, 8), 4, 1, 4), "mid_block_add_attention": True}).eval()


@pytest.mark.parametrize(("height", "width", "tiles"), [(1088, 1088, 1), (1089, 200, 2), (1200, 2200, 6)])
def test_a_picture_is_cut_once_it_exceeds_a_tile_and_two_paddings(height: int, width: int, tiles: int) -> None:
    assert len(plan_encode(height, width, 1024).in_boxes) == tiles


def test_kept_boxes_cover_every_latent_pixel_once() -> None:
    plan = plan_encode(1600, 1400, 256)
    covered = torch.zeros(200, 175)
    for box in plan.out_boxes:
        covered[box.y1 : box.y2, box.x1 : box.x2] += 1
    assert (covered == 1).all()


def test_tiles_grow_to_a_multiple_of_the_largest_power_of_two_that_fits() -> None:
    rows = {(box.y1, box.y2) for box in plan_decode(100, 30, 60).in_boxes}
    assert rows == {(0, 70), (48, 100)}  # 39 latent pixels each: 64 would exceed the tile, 48 does not; and 11 of padding
    assert astuple(plan_decode(100, 30, 60).out_boxes[0]) == (0, 30 * 8, 0, 59 * 8)


def test_one_tile_is_the_plain_vae(vae: AutoencoderKL) -> None:
    pixels, latent = torch.rand(1, 3, 32, 24) * 2 - 1, torch.randn(1, 4, 12, 16)
    with torch.no_grad():
        moments, decoded = vae.encode(pixels).latent_dist.parameters, vae.decode(latent).sample
    torch.testing.assert_close(encode_published(vae, pixels), moments)
    torch.testing.assert_close(decode_published(vae, latent), decoded)


def test_tiles_fill_the_whole_result(vae: AutoencoderKL) -> None:
    latent = torch.randn(1, 4, 40, 35)
    assert decode_published(vae, latent, tile=8).shape == (1, 3, 80, 70)
    assert Box(0, 70, 0, 80) == plan_decode(40, 35, 64, downscale=2).out_boxes[0]
