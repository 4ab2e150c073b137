"""TSD-SR against the golden vectors of its release, against networks with unmerged adapters, and on pictures of any size."""

from __future__ import annotations

from pathlib import Path

import parity
import pytest
import torch
from golden_files import GOLDEN
from kintsugi.core.errors import BadValueError
from kintsugi.core.methods.one_step import Generator, Tiling, restore, restore_latent
from kintsugi.core.methods.tsd_sr import OneStepConstants, TsdSr
from kintsugi.core.methods.tsd_sr_release import ReleaseSettings, tile_starts, working_size
from kintsugi.core.models.codec import LatentCodec
from kintsugi.core.models.mini import build_sd3_transformer, build_vae, vae_config
from kintsugi.core.models.prior import Prior
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.runtime import LocalHost, using_host
from originals.tsd_sr_folder import TRANSFORMER, write_other_folder


@pytest.fixture(scope="module")
def generator() -> Generator:
    """TSD-SR at tiny widths with a VAE of 4 pixels per latent pixel; places for latents of 40 x 40."""
    torch.manual_seed(0)
    prompt = PromptEmbedding(torch.randn(1, 5, 20), torch.randn(1, 12))
    method = TsdSr(build_sd3_transformer(TRANSFORMER), prompt, OneStepConstants(latent_offset=0.1)).eval()
    method.fold()
    codec = LatentCodec(build_vae({**vae_config((8, 16, 16), 8, 1, 4), "scaling_factor": 1.2, "shift_factor": 0.1}).eval())
    return Generator("tiny", method, Prior("tiny", codec), samples_posterior=True)


def test_every_golden_tensor_of_the_published_path_holds() -> None:
    checks = parity.run_parity("tsd-sr", GOLDEN / "tsd-sr", "inference")
    assert [parity.line(check) for check in checks if not check.passed] == []
    assert {(check.file, check.tensor) for check in checks} >= {
        ("a_onestep_2.json", "out_wavelet"), ("a_onestep_3.json", "out_adain"), ("b_latent_tiled.json", "narrow_pred"),
        ("c_vae_tiled_encode.json", "moments_tiled"), ("c_vae_tiled_decode.json", "image_tiled"), ("d_colour_fix.json", "adain_uint8"),
        ("e_scheduler.json", "timesteps"),
    }  # fmt: skip


def test_a_folder_of_another_configuration_by_networks_with_unmerged_adapters_holds(tmp_path: Path) -> None:
    write_other_folder(tmp_path)
    checks = parity.run_parity("tsd-sr", tmp_path, "inference")
    assert [parity.line(check) for check in checks if not check.passed] == [] and len(checks) == 33


def test_a_larger_micro_batch_gives_the_same_latents(generator: Generator) -> None:
    latents = torch.randn(4, 8, 6, 10)
    one_by_one = generator.method.restore_latent(latents, None)
    with using_host(LocalHost(device=torch.device("cpu"), micro_batch=3)):
        torch.testing.assert_close(generator.method.restore_latent(latents, None), one_by_one, rtol=1e-5, atol=1e-5)


def test_the_offset_is_what_the_network_sees_on_top_and_no_part_of_the_result(generator: Generator) -> None:
    method = generator.method
    assert isinstance(method, TsdSr)
    unshifted = TsdSr(method.transformer, PromptEmbedding(method.prompt, method.pooled), OneStepConstants())
    latent = torch.randn(1, 8, 6, 8)
    torch.testing.assert_close(method.restore_latent(latent, None), unshifted.restore_latent(latent + 0.1, None) - 0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_restores_the_same_latent_within_its_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    method = TsdSr(
        build_sd3_transformer(TRANSFORMER), PromptEmbedding(torch.randn(1, 5, 20), torch.randn(1, 12)), OneStepConstants(0.1)
    ).eval()
    latent = torch.randn(1, 8, 12, 10)
    exact = method.restore_latent(latent, None)
    method.to(dtype).fold()
    rounded = method.restore_latent(latent, None)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 9), (30, 21), (65, 100)])
def test_pictures_that_are_no_whole_number_of_patches_are_restored(generator: Generator, height: int, width: int) -> None:
    restored = restore(generator, torch.rand(1, height, width, 3), 2.0, 0, Tiling(64, 16), "wavelet")
    assert restored.shape == (1, 2 * height, 2 * width, 3) and restored.isfinite().all()


def test_a_picture_of_a_batch_equals_itself_restored_alone(generator: Generator) -> None:
    pictures = torch.rand(3, 40, 56, 3)
    together = restore(generator, pictures, 1.0, 7, Tiling(64, 16))
    alone = [restore(generator, picture, 1.0, 7 + index, Tiling(64, 16)) for index, picture in enumerate(pictures.split(1))]
    assert torch.equal(together, torch.cat(alone))


def test_a_latent_of_an_odd_size_is_padded_and_cropped_again(generator: Generator) -> None:
    assert restore_latent(generator, torch.randn(2, 8, 7, 11), 0).shape == (2, 8, 7, 11)


def test_a_latent_beyond_the_table_of_positions_is_refused_with_the_largest_tile_that_works(generator: Generator) -> None:
    assert generator.method.restore_latent(torch.randn(1, 8, 40, 40), None).shape == (1, 8, 40, 40)
    with pytest.raises(BadValueError, match=r"a latent of 42 x 40 .* end at 40.* at most 40 latent pixels"):
        generator.method.restore_latent(torch.randn(1, 8, 40, 42), None)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 7), (0, 4)])
def test_a_latent_that_is_no_whole_number_of_patches_is_refused(generator: Generator, height: int, width: int) -> None:
    with pytest.raises(BadValueError, match=f"a latent of {width} x {height} is no whole number of patches, which are 2 latent pixels"):
        generator.method.restore_latent(torch.randn(1, 8, height, width), None)


def test_a_stored_prompt_of_another_width_is_refused() -> None:
    with pytest.raises(BadValueError, match=r"is \[1, 5, 21\], expected \[1, tokens, 20\]"):
        TsdSr(build_sd3_transformer(TRANSFORMER), PromptEmbedding(torch.zeros(1, 5, 21), torch.zeros(1, 12)), OneStepConstants())


# --- the published path


@pytest.mark.parametrize(
    ("source", "settings", "expected"),
    [
        ((128, 128), ReleaseSettings(), (512, 512, False)),
        ((100, 160), ReleaseSettings(), (512, 816, True)),
        ((131, 129), ReleaseSettings(upscale=1, process_size=64), (128, 128, True)),
        ((64, 48), ReleaseSettings(upscale=2, process_size=64), (128, 96, False)),
    ],
)
def test_the_working_size_has_a_minimum_and_is_cut_to_multiples_of_8(
    source: tuple[int, int], settings: ReleaseSettings, expected: tuple[int, int, bool]
) -> None:
    assert working_size(*source, settings) == expected


def test_published_tiles_cover_a_side_and_end_with_it() -> None:
    assert tile_starts(22, 12, 4) == [0, 8, 10] and tile_starts(12, 12, 4) == [0] and tile_starts(128, 64, 8) == [0, 56, 64]
    with pytest.raises(BadValueError, match="cannot overlap"):
        tile_starts(30, 8, 8)
