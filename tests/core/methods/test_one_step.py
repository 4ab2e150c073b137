"""The path from a degraded picture to a restored one, with tiny networks of the real classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from kintsugi.core.errors import BadValueError, KintsugiError, OutOfMemoryError
from kintsugi.core.methods import one_step
from kintsugi.core.methods.coding import decode_latent, encode_picture
from kintsugi.core.methods.gendr import GenDR, OneStepConstants
from kintsugi.core.methods.one_step import Generator, Tiling, restore, restore_latent
from kintsugi.core.models.codec import LatentCodec
from kintsugi.core.models.mini import build_unet, build_vae, unet_config, vae_config
from kintsugi.core.models.prior import Prior
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.runtime import LocalHost, using_host


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    unet = build_unet(unet_config((16, 16), 4, 1, 8, 4))
    vae = build_vae(vae_config((8, 16, 16), 4, 1, 4))
    student = GenDR(unet, torch.randn(1, 2, 8), OneStepConstants(1.0, 0.5, 500)).eval()
    return Generator("tiny", student, Prior("tiny", LatentCodec(vae.eval())))


@pytest.fixture
def calls(generator: Generator) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of the latents that went through the U-Net."""
    seen: list[tuple[int, ...]] = []
    hook = generator.method.unet.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))  # type: ignore[attr-defined]
    yield seen
    hook.remove()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 64), (128, 256), (256, 256)])
def test_network_calls_are_exactly_proportional_to_the_pixels(
    generator: Generator, calls: list[tuple[int, ...]], height: int, width: int
) -> None:
    restore(generator, torch.rand(1, height, width, 3), 1.0, 0, Tiling(64, 16))
    assert len(calls) == height * width // 64**2
    restore(generator, torch.rand(1, height // 2, width // 2, 3), 2.0, 0, Tiling(64, 16))
    assert len(calls) == 2 * (height * width // 64**2)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (7, 30), (65, 63), (1, 200)])
def test_any_size_is_restored_to_the_rounded_scaled_size(generator: Generator, height: int, width: int) -> None:
    picture = torch.rand(1, height, width, 3)
    for scale in (1.0, 2.5, 4.0):
        restored = restore(generator, picture, scale, 0, Tiling(64, 16))
        assert restored.shape == (1, max(1, round(height * scale)), max(1, round(width * scale)), 3)
        assert restored.min() >= 0 and restored.max() <= 1


def test_a_larger_micro_batch_takes_several_windows_at_once_and_gives_the_same_picture(
    generator: Generator, calls: list[tuple[int, ...]]
) -> None:
    picture = torch.rand(1, 128, 192, 3)
    one_by_one = restore(generator, picture, 1.0, 0, Tiling(64, 16))
    calls.clear()
    with using_host(LocalHost(device=torch.device("cpu"), micro_batch=4)):
        together = restore(generator, picture, 1.0, 0, Tiling(64, 16))
    assert [shape[0] for shape in calls] == [4, 4]
    assert (together - one_by_one).abs().max() < 1e-4


def test_a_picture_of_a_batch_equals_itself_restored_alone(generator: Generator) -> None:
    pictures = torch.rand(3, 40, 56, 3)
    together = restore(generator, pictures, 1.0, 7, Tiling(64, 16), "wavelet")
    for index in range(3):
        assert torch.equal(
            together[index : index + 1], restore(generator, pictures[index : index + 1], 1.0, 7 + index, Tiling(64, 16), "wavelet")
        )


def test_what_the_mask_leaves_out_keeps_its_pixels(generator: Generator) -> None:
    picture, mask = torch.rand(1, 100, 72, 3), torch.zeros(1, 100, 72)
    mask[:, :40, :72] = 1
    kept = restore(generator, picture, 1.0, 0, Tiling(64, 16), "wavelet", mask)
    assert torch.equal(kept[:, 40:], picture[:, 40:])
    assert not torch.equal(kept[:, :40], picture[:, :40])
    assert torch.equal(restore(generator, picture, 1.0, 0, Tiling(64, 16), mask=torch.zeros(1, 100, 72)), picture)
    whole = restore(generator, picture, 1.0, 0, Tiling(64, 16))
    assert (restore(generator, picture, 1.0, 0, Tiling(64, 16), mask=torch.ones(1, 100, 72)) - whole).abs().max() < 1e-6


def test_one_mask_serves_every_picture_of_a_batch_and_is_enlarged_with_them(generator: Generator) -> None:
    pictures, mask = torch.rand(2, 20, 30, 3), torch.ones(1, 20, 30)
    mask[:, :, 15:] = 0
    restored = restore(generator, pictures, 2.0, 3, Tiling(64, 16), mask=mask)
    alone = restore(generator, pictures[1:], 2.0, 4, Tiling(64, 16), mask=mask)
    assert restored.shape == (2, 40, 60, 3) and torch.equal(restored[1:], alone)


@pytest.mark.parametrize("shape", [(1, 20, 31), (3, 20, 30), (20, 30)])
def test_a_mask_of_another_size_is_refused_before_any_call(
    generator: Generator, calls: list[tuple[int, ...]], shape: tuple[int, ...]
) -> None:
    with pytest.raises(BadValueError, match=r"expected \[2 or 1, 20, 30\]"):
        restore(generator, torch.rand(2, 20, 30, 3), 1.0, 0, Tiling(), mask=torch.ones(shape))
    assert calls == []


def test_a_sampled_posterior_depends_on_the_seed_alone(generator: Generator) -> None:
    sampling = replace(generator, samples_posterior=True, method=Unchanged())
    picture = torch.rand(1, 64, 96, 3)
    whole = restore(sampling, picture, 1.0, 5, Tiling(128, 16))
    assert torch.equal(restore(sampling, picture, 1.0, 5, Tiling(128, 16)), whole)
    assert (restore(sampling, picture, 1.0, 6, Tiling(128, 16)) - whole).abs().max() > 1e-3


def test_tiles_cut_their_noise_out_of_one_map(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    encode = LatentCodec.encode
    monkeypatch.setattr(LatentCodec, "encode", lambda self, pictures, noise: seen.append(noise) or encode(self, pictures, noise))
    sampling = replace(generator, samples_posterior=True, method=Unchanged())
    restore(sampling, torch.rand(1, 64, 96, 3), 1.0, 5, Tiling(128, 16))
    restore(sampling, torch.rand(1, 64, 96, 3), 1.0, 5, Tiling(32, 16))
    whole, *windows = seen
    assert torch.equal(windows[0], whole[..., :12, :12]) and torch.equal(windows[-1], whole[..., -12:, -12:])


class Unchanged:
    """A method that gives its latent back."""

    latent_multiple = 1
    largest_side: int | None = None
    noise_channels = 0

    def restore_latent(self, latent: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        assert noise is None
        return latent

    def with_prompt(self, prompt: PromptEmbedding) -> Unchanged:
        return self


class Noise(Unchanged):
    """A method whose answer is its noise alone."""

    noise_channels = 4

    def restore_latent(self, latent: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        assert noise is not None and noise.shape == latent.shape
        return noise


def test_noise_belongs_to_the_latent_pixel_whatever_the_tiles(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = replace(generator, method=Noise())
    latent = torch.randn(2, 4, 40, 24)
    whole = restore_latent(noisy, latent, 9)
    assert torch.equal(whole[1:], restore_latent(noisy, latent[1:], 10))
    run = Noise.restore_latent
    monkeypatch.setattr(Noise, "restore_latent", lambda self, part, noise: refuse(part) or run(self, part, noise))
    assert (restore_latent(noisy, latent, 9) - whole).abs().max() < 1e-5


class Narrow(Unchanged):
    """A method that takes latents up to 20 pixels a side."""

    largest_side = 20

    def restore_latent(self, latent: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        assert max(latent.shape[-2:]) <= 20
        return latent


def test_tiles_never_exceed_what_one_call_takes(generator: Generator) -> None:
    narrow, plain = (replace(generator, method=method) for method in (Narrow(), Unchanged()))
    latent = torch.randn(1, 4, 50, 33)
    assert (restore_latent(narrow, latent, 0) - latent).abs().max() < 1e-5
    picture = torch.rand(1, 200, 96, 3)
    assert torch.equal(restore(narrow, picture, 1.0, 0, Tiling(512, 16)), restore(plain, picture, 1.0, 0, Tiling(64, 16)))


def refuse(part: torch.Tensor) -> None:
    if part.shape[-2] > 25:
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_a_prompt_without_text_encoders_is_refused_and_an_empty_one_changes_nothing(generator: Generator) -> None:
    assert generator.with_prompt("  ") is generator
    with pytest.raises(BadValueError, match="no text encoders"):
        generator.with_prompt("a photo of a cat")
    tokens = torch.randn(1, 3, 8)
    told = replace(generator, prior=replace(generator.prior, prompt_encoder=lambda text: PromptEmbedding(tokens)))
    method = told.with_prompt("a cat").method
    assert isinstance(method, GenDR) and torch.equal(method.prompt, tokens)


def test_input_pictures_are_not_changed(generator: Generator) -> None:
    picture = torch.rand(1, 40, 56, 3)
    kept = picture.clone()
    for color_fix in ("none", "wavelet", "adain", "lab"):
        restore(generator, picture, 1.0, 0, Tiling(64, 16), color_fix)  # type: ignore[arg-type]
    assert torch.equal(picture, kept)


def test_nan_in_the_picture_is_refused(generator: Generator) -> None:
    picture = torch.rand(1, 16, 16, 3)
    picture[0, 3, 3, 1] = torch.nan
    with pytest.raises(KintsugiError, match="1 values that are not finite"):
        restore(generator, picture, 1.0, 0, Tiling())


def test_an_empty_picture_is_refused(generator: Generator) -> None:
    with pytest.raises(BadValueError, match="0 x 16"):
        restore(generator, torch.rand(1, 16, 0, 3), 1.0, 0, Tiling())


def test_a_result_beyond_memory_is_refused_with_the_scale_that_fits(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_step, "available_ram", lambda: 40_000_000)
    with pytest.raises(OutOfMemoryError, match=r"at scale 4 .* at most 1\.4\d \(") as refused:
        restore(generator, torch.rand(1, 500, 600, 3), 4.0, 0, Tiling())
    assert "GiB are free" in str(refused.value)


def test_out_of_memory_means_smaller_tiles_and_a_log_line(generator: Generator, caplog: pytest.LogCaptureFixture) -> None:
    def refuse_large(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs[0].shape[-1] * 4 > 100:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = generator.method.unet.register_forward_pre_hook(refuse_large)  # type: ignore[attr-defined]
    try:
        restored = restore(generator, torch.rand(1, 256, 256, 3), 1.0, 0, Tiling(256, 16))
    finally:
        hook.remove()
    assert restored.shape == (1, 256, 256, 3)
    assert [record.message for record in caplog.records] == [f"Out of memory: trying again with tiles of {tile}." for tile in (128, 64)]


def test_every_window_is_framed_by_its_border_and_cropped_again(generator: Generator, calls: list[tuple[int, ...]]) -> None:
    framed = replace(generator, border=16)
    assert restore(framed, torch.rand(1, 64, 100, 3), 1.0, 0, Tiling(64, 16)).shape == (1, 64, 100, 3)
    # 104 pixels are two windows of 64 + 16 pixels, each with 16 more on both sides, a quarter of that in latents.
    assert calls == [(1, 4, 24, 28)] * 2


def test_memory_that_even_the_smallest_tile_exceeds_is_told_with_the_way_out(generator: Generator) -> None:
    def ask_for_too_much(_: object, __: object) -> None:
        torch.empty(10**15)

    hook = generator.method.unet.register_forward_pre_hook(ask_for_too_much)  # type: ignore[attr-defined]
    try:
        with pytest.raises(OutOfMemoryError, match="tiles of 64 pixels"):
            restore(generator, torch.rand(1, 96, 96, 3), 1.0, 0, Tiling(128, 16))
    finally:
        hook.remove()


def test_a_latent_of_any_size_is_restored(generator: Generator) -> None:
    latent = torch.randn(2, 4, 7, 9)
    assert restore_latent(generator, latent, 0).shape == latent.shape
    with pytest.raises(BadValueError, match=r"expected \[batch, 4"):
        restore_latent(generator, torch.randn(1, 16, 8, 8), 0)


def test_encode_and_decode_take_any_size_in_tiles_or_whole(generator: Generator) -> None:
    latent = encode_picture(generator.prior, torch.rand(2, 101, 66, 3), 64)
    assert latent.shape == (2, 4, 26, 17)
    assert decode_latent(generator.prior, latent, 64).shape == (2, 104, 68, 3)
    with pytest.raises(BadValueError, match="Decode with the prior"):
        decode_latent(generator.prior, torch.randn(1, 16, 8, 8), 64)
