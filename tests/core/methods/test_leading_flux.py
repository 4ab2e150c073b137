"""A Flux made by hand, whose adapter leads the noise back to the degraded latent: every schedule, tile and offload ends there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kintsugi.core.diffusion import flux_sigmas
from kintsugi.core.methods.coding import decode_latent, encode_picture
from kintsugi.core.methods.fluxir import Options, restore_latent, sample
from kintsugi.core.models.controlled_flux import controlled
from kintsugi.core.models.offload import OFFLOADS, Offload
from kintsugi.core.models.prior import Prior
from kintsugi.core.weights.priors import read_prior
from leading_flux import leading_adapter, write_leading_prior
from torch import Tensor

LEVEL = 1 / 255


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_leading_prior(tmp_path_factory.mktemp("flux") / "flux.safetensors")


def flux(weights: Path, dtype: torch.dtype = torch.float32, offload: Offload = "none") -> Prior:
    return read_prior(weights, dtype, offload)


def transformer(prior: Prior) -> Any:
    assert prior.denoiser is not None
    return prior.denoiser()


@pytest.fixture(scope="module")
def picture() -> Tensor:
    """Coarse colours [1, 64, 96, 3]."""
    coarse = torch.rand(1, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (64, 96), mode="bilinear").movedim(1, -1)


def drawn(seed: int) -> Tensor:
    return torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("offload", OFFLOADS)
def test_the_picture_comes_back_as_the_vae_makes_it(weights: Path, picture: Tensor, offload: Offload) -> None:
    prior = flux(weights, offload=offload)
    latent = encode_picture(prior, picture, 512)
    restored = restore_latent(prior, leading_adapter(), latent, 0, Options())
    assert (restored - latent).std() < 0.01
    assert (decode_latent(prior, restored, 512) - decode_latent(prior, latent, 512)).abs().max() < LEVEL


def test_in_bfloat16_it_comes_back_within_that_precision(weights: Path, picture: Tensor) -> None:
    prior = flux(weights, torch.bfloat16)
    latent = encode_picture(prior, picture, 512)
    restored = restore_latent(prior, leading_adapter(torch.bfloat16), latent, 0, Options())
    assert (restored - latent).std() < 0.02


def test_tiles_and_prompts_and_guidance_change_nothing(weights: Path, picture: Tensor) -> None:
    prior, adapter = flux(weights), leading_adapter()
    latent = encode_picture(prior, torch.cat([picture] * 5, dim=2), 512)
    for options, tile, text in ((Options(), 256, ""), (Options(guidance=9.0), 1024, "a clean photo")):
        restored = restore_latent(prior, adapter, latent, 1, options, tile, prior.encode_prompt(text))
        assert (restored - latent).std() < 0.01


@pytest.mark.parametrize("tokens", [64, 4096, 16384])
@pytest.mark.parametrize("steps", [1, 2, 4, 8, 13, 30])
def test_the_noise_leaves_on_any_schedule(weights: Path, steps: int, tokens: int) -> None:
    """The shift of the sigmas grows with the picture; here the picture itself stays small."""
    prior, options = flux(weights), Options(steps)
    with controlled(transformer(prior), leading_adapter()) as network:
        *_, restored = sample(network, drawn(0), drawn(1), prior.encode_prompt(""), flux_sigmas(steps, tokens), options)
    assert (restored - drawn(1)).std() < 0.01 and (restored - drawn(1)).abs().max() < 0.1


def test_its_velocity_leads_straight_to_the_degraded_latent(weights: Path) -> None:
    prior = flux(weights)
    for sigma in (1.0, 0.7, 0.31, 0.1, 0.02):
        with controlled(transformer(prior), leading_adapter()) as network:
            (step,) = sample(network, drawn(0), drawn(1), prior.encode_prompt(""), torch.tensor([sigma, 0.0]), Options(1))
        assert torch.allclose(step, drawn(1), atol=0.05)
