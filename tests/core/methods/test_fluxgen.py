"""FluxGen: what Flux draws by itself, the crops, and the pairs; a record depends on its own seed alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from kintsugi.core.degradation.pipeline import degrade, replay
from kintsugi.core.errors import BadValueError, OutOfMemoryError
from kintsugi.core.imaging.png_bytes import from_png, to_png
from kintsugi.core.methods.fluxgen import Drawing, draw_record, generate, make_pair, random_crop
from kintsugi.core.methods.fluxir import Options
from kintsugi.core.models.codec import LatentCodec
from kintsugi.core.models.prior import Prior
from kintsugi.core.randomness import seed_for
from kintsugi.core.runtime import LocalHost, using_host
from test_fluxir import pipeline_result
from tiny_flux import tiny_flux, tiny_prior, tiny_prompt
from torch import Tensor

SMALL = Drawing(width=64, height=32, steps=3, guidance=2.5)


@pytest.fixture(scope="module")
def flux() -> Any:
    return tiny_flux()


@pytest.fixture(scope="module")
def prior(flux: Any) -> Prior:
    return tiny_prior(flux)


def test_a_picture_is_what_fluxs_own_pipeline_draws_to_the_bit(prior: Prior, flux: Any) -> None:
    noise = torch.randn(4, 16, 32, generator=torch.Generator().manual_seed(9))[None]
    latent = pipeline_result(flux, noise, tiny_prompt("a cat"), Options(steps=3, guidance=2.5))
    expected = prior.codec.decode(latent).clamp(0, 1).movedim(1, 3)
    assert torch.equal(generate(prior, "a cat", 9, SMALL), expected)


def test_a_prior_that_was_trained_on_small_pictures_draws_a_large_one_in_tiles_of_one_noise(prior: Prior, flux: Any) -> None:
    seen: list[int] = []
    hook = flux.register_forward_pre_hook(lambda _, __, inputs: seen.append(inputs["hidden_states"].shape[1]), with_kwargs=True)
    drawn = [generate(replace(prior, largest_side=side), "", 9, SMALL) for side in (32, 8)]
    hook.remove()
    assert torch.equal(drawn[0], generate(prior, "", 9, SMALL)) and not torch.equal(*drawn)
    assert set(seen[:3]) == {16 * 8} and set(seen[3:]) == {4 * 4} and drawn[1].shape == (1, 32, 64, 3)


def test_the_defaults_are_the_papers() -> None:
    assert Drawing() == Drawing(width=1024, height=768, steps=20, guidance=4.0)


def test_a_picture_of_a_batch_is_the_one_drawn_alone_to_the_bit(prior: Prior) -> None:
    together = generate(prior, "", 5, SMALL, count=3)
    assert together.shape == (3, 32, 64, 3)
    for index in range(3):
        assert torch.equal(generate(prior, "", 5 + index, SMALL), together[index : index + 1])
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_a_place_in_a_micro_batch_shows_in_the_last_bits_alone(prior: Prior) -> None:
    """Two threads share the rows of a product, and the border between them falls elsewhere for another place."""
    with using_host(LocalHost(device=torch.device("cpu"), micro_batch=2)):
        together = generate(prior, "", 5, SMALL, count=3)
        alone = torch.cat([generate(prior, "", 5 + index, SMALL) for index in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_prompt_the_guidance_and_the_steps_count(prior: Prior) -> None:
    expected = generate(prior, "", 5, SMALL)
    others = [
        generate(prior, "a cat", 5, SMALL),
        generate(prior, "", 5, Drawing(64, 32, 3, 1.0)),
        generate(prior, "", 5, Drawing(64, 32, 4, 2.5)),
    ]
    assert not any(torch.equal(other, expected) for other in others)


def test_what_is_no_flux_or_no_whole_token_is_refused(prior: Prior) -> None:
    with pytest.raises(BadValueError, match="Prior sd3: it has no Flux transformer"):
        generate(Prior("sd3", LatentCodec(prior.codec.vae)), "", 0, SMALL)
    with pytest.raises(BadValueError, match=r"the height is 50 pixels, expected a multiple of 16\. Choose 48"):
        Drawing(height=50)


def test_a_picture_that_does_not_fit_is_never_drawn_in_tiles(prior: Prior, monkeypatch: pytest.MonkeyPatch) -> None:
    def overflow(*_: object, **__: object) -> Tensor:
        raise torch.OutOfMemoryError

    network = tiny_flux()
    monkeypatch.setattr(network, "forward", overflow)
    with pytest.raises(OutOfMemoryError, match="do not fit"):
        generate(tiny_prior(network), "", 0, SMALL)


# --- crops


def test_crops_keep_the_middle_at_three_shapes_equally_often() -> None:
    picture = torch.arange(1024.0).view(1, 1, 1024, 1).expand(1, 768, 1024, 3)
    widths = Counter()
    for seed in range(300):
        crop = random_crop(picture, seed)
        assert crop.shape[:2] == (1, 768)
        assert crop[0, 0, 0, 0] == 1023 - crop[0, 0, -1, 0]
        widths[crop.shape[2]] += 1
    assert set(widths) == {1024, 768, 512}
    assert min(widths.values()) > 75


def test_small_crops_are_whole_tokens() -> None:
    assert {random_crop(torch.zeros(1, 64, 112, 3), seed).shape[2] for seed in range(40)} == {112, 80, 48}
    assert {random_crop(torch.zeros(1, 16, 16, 3), seed).shape[2] for seed in range(40)} == {16}


def test_a_record_is_the_drawn_picture_cut_by_its_own_seed(prior: Prior) -> None:
    for seed in range(4):
        assert torch.equal(draw_record(prior, "", seed, SMALL), random_crop(generate(prior, "", seed, SMALL), seed))


# --- pairs

PICTURE = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(3)), scale_factor=4)


def test_replaying_the_parameters_on_high_quality_gives_low_quality_to_the_bit() -> None:
    pair = make_pair(PICTURE.movedim(1, 3), seed=11, scale=4)
    assert pair.high_quality.shape == (1, 48, 64, 3) and pair.low_quality.shape == (1, 12, 16, 3)
    stored = from_png(to_png(pair.high_quality), "hq.png")
    assert torch.equal(stored, pair.high_quality)
    assert torch.equal(replay(stored.movedim(3, 1), [pair.parameters]).movedim(1, 3), pair.low_quality)


def test_a_pair_is_seesrs_up_to_the_rounding_of_a_file() -> None:
    pair = make_pair(PICTURE.movedim(1, 3), seed=11)
    expected = degrade(PICTURE, "real-esrgan-seesr", 4, seed_for(11, "degradation"))
    assert (pair.high_quality - expected.high_quality.movedim(1, 3)).abs().max() <= 0.5001 / 255
    assert pair.parameters["steps"] == expected.parameters[0]["steps"][1:]
    assert not torch.equal(pair.low_quality, make_pair(PICTURE.movedim(1, 3), seed=12).low_quality)
