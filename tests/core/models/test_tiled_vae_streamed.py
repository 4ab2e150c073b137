"""Streamed tiles: no seams, flat fields flat, colours near the whole picture's, memory of a tile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from kintsugi.core.imaging.tiling import Tile
from kintsugi.core.models import tiled_vae_streamed
from kintsugi.core.models.tiled_vae_streamed import reach_of, run_streamed
from kintsugi.core.models.vae_layers import Coder, decoder_of, encoder_of
from kintsugi.core.runtime import LocalHost, using_host
from kintsugi.core.weights.embedded import VAE
from kintsugi.core.weights.priors import read_vae
from PIL import Image
from torch import Tensor, nn
from vae_examples import LATENT_CHANNELS, half_flat, random_vae

CLEAN = Path(__file__).parents[3] / "docs" / "sample" / "clean.png"
TILE = 64
GREY_LEVEL = 2 / 255  # of pixels in -1..1


@pytest.fixture(scope="module")
def photo() -> Tensor:
    """[1, 3, 256, 256] in -1..1."""
    pixels = torch.from_numpy(np.array(Image.open(CLEAN).convert("RGB").resize((256, 256)))) / 127.5 - 1
    return pixels.permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def embedded() -> AutoencoderKL:
    return read_vae(VAE).float().eval()


@torch.no_grad()
def latent_of(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    return vae.encode(pixels).latent_dist.mode()


def in_one_window(coder: Coder, planes: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """What streaming gives with the statistics it has for this tile size, but without tiles."""
    with monkeypatch.context() as patch:
        patch.setattr(tiled_vae_streamed, "plan_windows", lambda picture, *_: [Tile(0, 0, *picture.shape[-2:])])
        return run_streamed(coder, planes, TILE, "")


def steepness_at_borders(result: Tensor, tile: int) -> float:
    """Mean absolute gradient across tile borders, against that elsewhere."""
    at_borders, elsewhere = [], []
    for planes in (result, result.mT):
        gradient = planes.diff(dim=-1).abs().mean((0, 1, 2))
        border = torch.arange(1, len(gradient) + 1) % tile == 0
        at_borders.append(gradient[border].mean())
        elsewhere.append(gradient[~border].mean())
    return float(sum(at_borders) / sum(elsewhere))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("attention", [True, False])
def test_tiles_of_a_photo_join_without_a_trace(photo: Tensor, seed: int, attention: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    vae = random_vae(seed, mid_block_add_attention=attention)
    for coder, planes, tile in ((encoder_of(vae), photo, TILE // 4), (decoder_of(vae), latent_of(vae, photo), TILE)):
        result, joined = run_streamed(coder, planes, TILE, ""), in_one_window(coder, planes, monkeypatch)
        assert (result - joined).abs().max() <= 1e-5 * joined.abs().max()
        assert steepness_at_borders(result, tile) <= 1.02 * steepness_at_borders(joined, tile)


@torch.no_grad()
def test_a_photo_through_the_embedded_vae_has_no_seams_and_its_colours(photo: Tensor, embedded: AutoencoderKL) -> None:
    latent = run_streamed(encoder_of(embedded), photo, TILE, "")[:, : embedded.config.latent_channels]
    result, whole = run_streamed(decoder_of(embedded), latent, TILE, ""), embedded.decode(latent_of(embedded, photo)).sample
    assert steepness_at_borders(result, TILE) <= 1.02 * steepness_at_borders(whole, TILE)
    assert (result - whole).abs().mean() <= 2 * GREY_LEVEL
    assert (result - whole).mean((0, 2, 3)).abs().max() <= GREY_LEVEL


@pytest.mark.parametrize("color", [(0.5, 0.5, 0.5), (0.2, 0.7, 0.4), (1.0, 1.0, 1.0)])
@torch.no_grad()
def test_a_flat_field_stays_flat(embedded: AutoencoderKL, color: tuple[float, ...]) -> None:
    field = (torch.tensor(color)[None, :, None, None] * 2 - 1).expand(1, 3, 256, 256)
    latent = run_streamed(encoder_of(embedded), field, TILE, "")[:, : embedded.config.latent_channels]
    # At the picture's own border any VAE shows its zero padding.
    border = 4 * reach_of(decoder_of(embedded)) + reach_of(encoder_of(embedded))
    inner = run_streamed(decoder_of(embedded), latent, TILE, "").clamp(-1, 1)[..., border:-border, border:-border]
    assert (inner - inner.mean((2, 3), keepdim=True)).abs().max() <= GREY_LEVEL
    assert (inner - field[..., border:-border, border:-border]).abs().max() <= GREY_LEVEL


@torch.no_grad()
def test_a_picture_about_as_large_as_a_window_comes_out_as_the_whole() -> None:
    vae = random_vae(mid_block_add_attention=True, use_quant_conv=True, use_post_quant_conv=True)
    latent = half_flat(LATENT_CHANNELS, 33, 24)
    whole = vae.decode(latent).sample
    assert (run_streamed(decoder_of(vae), latent, TILE, "") - whole).abs().max() <= 1e-5 * whole.abs().max()


@torch.no_grad()
def test_no_tensor_grows_with_the_picture(photo: Tensor) -> None:
    vae = random_vae(mid_block_add_attention=True)
    coder, sizes = encoder_of(vae), []
    for module in vae.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda _, inputs, output: sizes.extend((inputs[0].numel(), output.numel())))
    run_streamed(coder, photo.repeat(1, 1, 2, 2), TILE, "")
    assert max(sizes) <= coder.width * (TILE + 2 * reach_of(coder) + 1) ** 2


@torch.no_grad()
def test_a_larger_micro_batch_and_half_the_bits_give_nearly_the_same(photo: Tensor) -> None:
    vae = random_vae(mid_block_add_attention=True)
    latent = latent_of(vae, photo)
    one_by_one = run_streamed(decoder_of(vae), latent, TILE, "")
    with using_host(LocalHost(device=torch.device("cpu"), micro_batch=4)):
        together = run_streamed(decoder_of(vae), latent, TILE, "")
    assert (together - one_by_one).abs().max() <= 1e-5 * one_by_one.abs().max()
    rounded = run_streamed(decoder_of(vae.bfloat16()), latent, TILE, "")
    assert (rounded - one_by_one).abs().mean() <= 0.02 * one_by_one.abs().max()


def test_the_reach_is_what_one_counts_by_hand() -> None:
    """1 + 4 + 4 latent pixels, half of 1 + 4 and a quarter of 1 + 4 + 1, rounded up."""
    assert reach_of(decoder_of(random_vae())) == 13
