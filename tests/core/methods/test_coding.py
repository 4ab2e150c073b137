"""Encoding and decoding of any size: which way is taken, and what happens when memory ends or a person stops it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from kintsugi.core.errors import BadValueError, Interrupted, OutOfMemoryError
from kintsugi.core.imaging.padding import pad_to_multiple
from kintsugi.core.methods import coding
from kintsugi.core.methods.coding import Mode, decode_latent, encode_picture
from kintsugi.core.models.codec import LatentCodec, as_pixels
from kintsugi.core.models.mini import build_vae, vae_config
from kintsugi.core.models.prior import Prior
from kintsugi.core.models.vae_layers import encoder_of
from kintsugi.core.randomness import draw_noise, picture_generators
from kintsugi.core.runtime import LocalHost, Progress, SilentProgress, using_host
from torch import Tensor, nn

GIBIBYTE = 2**30


@pytest.fixture(scope="module")
def prior() -> Prior:
    torch.manual_seed(0)
    config = {**vae_config((8, 16, 16), 4, 1, 4), "mid_block_add_attention": True, "scaling_factor": 1.5, "shift_factor": 0.1}
    return Prior("tiny", LatentCodec(build_vae(config).eval()))


@pytest.fixture
def picture() -> Tensor:
    return torch.rand(2, 201, 170, 3, generator=torch.Generator().manual_seed(0))


def whole(prior: Prior, picture: Tensor) -> Tensor:
    return encode_picture(prior, picture, 512)


def test_what_fits_a_tile_is_coded_by_the_plain_codec(prior: Prior) -> None:
    picture = torch.rand(1, 128, 100, 3)
    latent = prior.codec.encode(picture.permute(0, 3, 1, 2))
    assert torch.equal(encode_picture(prior, picture, 64), latent)
    assert torch.equal(decode_latent(prior, latent, 64), prior.codec.decode(latent).clamp(0, 1).permute(0, 2, 3, 1))


def test_results_may_be_written_to(prior: Prior, picture: Tensor) -> None:
    for tile in (64, 512):
        latent = encode_picture(prior, picture, tile)
        decode_latent(prior, latent.mul_(1), tile).mul_(1)


def test_auto_is_exact_as_far_as_the_pixels_and_the_memory_allow(
    prior: Prior, picture: Tensor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kintsugi")
    expected = whole(prior, picture)
    assert (encode_picture(prior, picture, 64) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert "Encoding 0.0 megapixels in exact tiles" in caplog.text
    monkeypatch.setattr(coding, "available_ram", lambda: 10**6)
    streamed = encode_picture(prior, picture, 64)
    assert "in streamed tiles: exact ones, for at most 16.8 megapixels, need 0.0 GiB of main memory, 0.0 GiB are free." in caplog.text
    monkeypatch.setattr(coding, "available_ram", lambda: 64 * GIBIBYTE)
    monkeypatch.setattr(coding, "EXACT_PIXELS", 10**4)
    assert torch.equal(encode_picture(prior, picture, 64), streamed)
    assert "in streamed tiles: exact ones, for at most 0.0 megapixels" in caplog.text
    assert torch.equal(encode_picture(prior, picture, 64, "streamed"), streamed)


def test_exact_is_refused_before_any_work_when_main_memory_does_not_suffice(
    prior: Prior, picture: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coding, "available_ram", lambda: 10**6)
    with pytest.raises(OutOfMemoryError, match="Choose tiling streamed"):
        encode_picture(prior, picture, 64, "exact")


@pytest.mark.parametrize("mode", ["exact", "streamed"])
def test_decoding_undoes_the_scale_in_every_mode(prior: Prior, picture: Tensor, mode: Mode) -> None:
    latent = whole(prior, picture)
    expected = decode_latent(prior, latent, 512)
    decoded = decode_latent(prior, latent, 64, mode)
    assert decoded.shape == (2, 204, 172, 3)
    assert (decoded - expected).abs().mean() <= (1e-6 if mode == "exact" else 0.02)


@pytest.mark.parametrize("mode", ["exact", "streamed"])
def test_pictures_of_a_batch_do_not_know_of_each_other(prior: Prior, picture: Tensor, mode: Mode) -> None:
    together = encode_picture(prior, picture, 64, mode)
    for index in range(2):
        assert torch.equal(together[index : index + 1], encode_picture(prior, picture[index : index + 1], 64, mode))


@pytest.mark.parametrize("tile", [64, 512])
def test_the_posterior_is_sampled_by_the_seed_alone(prior: Prior, picture: Tensor, tile: int) -> None:
    mean, sample = encode_picture(prior, picture, tile), encode_picture(prior, picture, tile, seed=5)
    assert torch.equal(sample, encode_picture(prior, picture, tile, seed=5))
    assert torch.equal(sample[1:], encode_picture(prior, picture[1:], tile, seed=6))
    deviation = torch.exp(0.5 * posterior(prior, picture).logvar) * prior.codec.vae.config.scaling_factor
    noise = draw_noise(picture_generators(5, 2), mean.shape[1:])
    assert torch.allclose(sample, mean + deviation * noise, atol=1e-4 * float(mean.abs().max()))


def posterior(prior: Prior, picture: Tensor) -> Any:
    planes = as_pixels(pad_to_multiple(picture.permute(0, 3, 1, 2), prior.codec.downscale))
    with torch.inference_mode():
        return prior.codec.vae.encode(planes).latent_dist


@pytest.fixture
def small_device(prior: Prior) -> Iterator[Callable[[int], None]]:
    """Lets convolutions of more than so many numbers run out of memory."""
    hooks = []

    def limit(elements: int) -> None:
        def refuse(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0].numel() > elements:
                torch.empty(10**15)

        hooks.extend(module.register_forward_pre_hook(refuse) for module in prior.codec.vae.modules() if isinstance(module, nn.Conv2d))

    yield limit
    for hook in hooks:
        hook.remove()


def test_out_of_memory_is_tried_again_with_smaller_tiles_and_gives_the_same(
    prior: Prior, picture: Tensor, small_device: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    expected = whole(prior, picture)
    small_device(8 * 80**2)
    found = encode_picture(prior, picture, 256)
    assert [record.args for record in caplog.records if "smaller" in record.msg or "again" in record.msg] == [(128,), (64,)]
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("mode", ["exact", "streamed"])
def test_the_smallest_tile_that_does_not_fit_is_an_error_with_a_way_out(
    prior: Prior, picture: Tensor, small_device: Callable[[int], None], mode: Mode
) -> None:
    small_device(1000)
    with pytest.raises(OutOfMemoryError, match="tiles of 64 pixels do not fit"):
        encode_picture(prior, picture, 128, mode)


@dataclass
class ImpatientHost(LocalHost):
    """Its person cancels after so many tiles."""

    patience: int = 0

    def progress(self, total: int, label: str) -> Progress:
        assert total > self.patience
        return SilentProgress(self.wait)

    def wait(self) -> None:
        self.patience -= 1
        if self.patience < 0:
            raise Interrupted


@pytest.mark.parametrize("mode", ["exact", "streamed"])
def test_a_person_can_stop_between_tiles(prior: Prior, picture: Tensor, mode: Mode) -> None:
    with using_host(ImpatientHost(device=torch.device("cpu"), patience=3)) as host, pytest.raises(Interrupted):
        encode_picture(prior, picture[:1], 64, mode)
    assert host.patience == -1


@pytest.mark.parametrize("mode", ["exact", "streamed"])
def test_the_progress_has_a_step_per_tile(prior: Prior, picture: Tensor, mode: Mode) -> None:
    steps: list[int] = []

    class CountingHost(LocalHost):
        def progress(self, total: int, label: str) -> Progress:
            steps.append(total)
            return SilentProgress(lambda: steps.append(-1))

    with using_host(CountingHost(device=torch.device("cpu"))):
        encode_picture(prior, picture, 64, mode)
    assert sum(steps) == 0


def test_a_vae_of_other_blocks_is_refused_for_tiles(prior: Prior) -> None:
    vae = build_vae({**vae_config((8, 8), 4, 1, 4), "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]})
    with pytest.raises(BadValueError, match="AttnDownEncoderBlock2D"):
        encoder_of(vae)
    other = replace(prior, codec=LatentCodec(vae))
    with pytest.raises(BadValueError, match="Choose a tile that holds the whole picture"):
        encode_picture(other, torch.rand(1, 300, 200, 3), 64)
    with pytest.raises(BadValueError, match="it is made of mish"):
        encoder_of(build_vae({**vae_config((8, 8), 4, 1, 4), "act_fn": "mish"}))
