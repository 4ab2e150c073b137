"""The embedded stand-ins of FluxIR give the picture back at any number of steps, and alone draw texture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kintsugi.core.diffusion import flux_sigmas
from kintsugi.core.imaging.reading import read_photo
from kintsugi.core.methods.coding import decode_latent, encode_picture
from kintsugi.core.methods.fluxgen import Drawing, generate
from kintsugi.core.methods.fluxir import Options, restore_latent, sample
from kintsugi.core.models.controlled_flux import controlled
from kintsugi.core.models.offload import OFFLOADS, Offload
from kintsugi.core.models.prior import Prior
from kintsugi.core.weights import embedded
from kintsugi.core.weights.fluxir import read_adapter
from kintsugi.core.weights.priors import load_prior
from test_embedded import SAMPLE
from torch import Tensor

LEVEL = 1 / 255


def flux(dtype: str = "fp32", offload: Offload = "none") -> Prior:
    return load_prior("flux", "embedded", dtype, offload)


def transformer(prior: Prior) -> Any:
    assert prior.denoiser is not None
    return prior.denoiser()


@pytest.fixture(scope="module")
def picture() -> Tensor:
    """A piece of the damaged sample photo [1, 64, 96, 3]."""
    return read_photo(SAMPLE / "sample.jpg").picture[:, 128:192, 128:224]


def drawn(seed: int) -> Tensor:
    return torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("offload", OFFLOADS)
def test_the_picture_comes_back_as_the_embedded_vae_makes_it(picture: Tensor, offload: Offload) -> None:
    prior = flux(offload=offload)
    latent = encode_picture(prior, picture, 512)
    restored = restore_latent(prior, read_adapter(embedded.FLUXIR), latent, 0, Options())
    assert (restored - latent).std() < 0.01
    assert (decode_latent(prior, restored, 512) - decode_latent(prior, latent, 512)).abs().max() < LEVEL


def test_in_bfloat16_it_comes_back_within_that_precision(picture: Tensor) -> None:
    prior = flux("bf16")
    latent = encode_picture(prior, picture, 512)
    restored = restore_latent(prior, read_adapter(embedded.FLUXIR, torch.bfloat16), latent, 0, Options())
    assert (restored - latent).std() < 0.02


def test_tiles_and_prompts_and_guidance_change_nothing(picture: Tensor) -> None:
    prior, adapter = flux(), read_adapter(embedded.FLUXIR)
    latent = encode_picture(prior, torch.cat([picture] * 5, dim=2), 512)
    for options, tile, text in ((Options(), 256, ""), (Options(guidance=9.0), 1024, "a clean photo")):
        restored = restore_latent(prior, adapter, latent, 1, options, tile, prior.encode_prompt(text))
        assert (restored - latent).std() < 0.01


@pytest.mark.parametrize("tokens", [64, 4096, 16384])
@pytest.mark.parametrize("steps", [1, 2, 4, 8, 13, 30])
def test_the_noise_leaves_on_any_schedule(steps: int, tokens: int) -> None:
    """The shift of the sigmas grows with the picture; here the picture itself stays small."""
    prior, options = flux(), Options(steps)
    with controlled(transformer(prior), read_adapter(embedded.FLUXIR)) as network:
        *_, restored = sample(network, drawn(0), drawn(1), prior.encode_prompt(""), flux_sigmas(steps, tokens), options)
    assert (restored - drawn(1)).std() < 0.01 and (restored - drawn(1)).abs().max() < 0.1


def test_its_velocity_leads_straight_to_the_degraded_latent() -> None:
    prior = flux()
    for sigma in (1.0, 0.7, 0.31, 0.1, 0.02):
        with controlled(transformer(prior), read_adapter(embedded.FLUXIR)) as network:
            (step,) = sample(network, drawn(0), drawn(1), prior.encode_prompt(""), torch.tensor([sigma, 0.0]), Options(1))
        assert torch.allclose(step, drawn(1), atol=0.05)


def test_alone_it_draws_mild_texture_that_the_seed_decides() -> None:
    drawing = Drawing(96, 64)
    pictures = generate(flux(), "", 0, drawing, 2)
    assert torch.equal(pictures[1:], generate(flux(), "a prompt", 1, drawing))
    assert (pictures[0] - pictures[1]).abs().mean() > 0.01
    assert all(0.01 < picture.std() < 0.15 and 0.3 < picture.mean() < 0.7 for picture in pictures)


def test_prompts_run_and_the_log_says_that_they_mean_nothing(caplog: pytest.LogCaptureFixture) -> None:
    prior = flux()
    assert "prior flux is untrained" in caplog.text
    prompt, other = prior.encode_prompt("a clean photo"), prior.encode_prompt("")
    assert prompt.pooled is not None and prompt.pooled.shape == (1, 8)
    assert prompt.tokens.shape == (1, 64, 8) and not torch.equal(prompt.tokens, other.tokens)


def test_auto_takes_it_where_nothing_is_found(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "kintsugi"):
        prior = load_prior("flux")
    assert prior.family == "flux" and prior.denoiser is not None and prior.schedule is not None
    assert "Prior flux: the small embedded one." in caplog.text


def test_the_adapter_fits_the_prior() -> None:
    prior = flux()
    read_adapter(embedded.FLUXIR).require_fit(transformer(prior))
