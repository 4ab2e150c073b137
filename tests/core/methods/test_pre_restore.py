"""Coarse restoration of pictures of any size, in tiles that leave no trace, by a tiny network of the real class."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from golden_files import GOLDEN
from kintsugi.core.errors import KintsugiError
from kintsugi.core.methods.pre_restore import PreRestorer, pre_restore
from kintsugi.core.models.swinir import SwinIR, SwinIRConfig
from kintsugi.core.runtime import LocalHost, using_host


@pytest.fixture(scope="module")
def network() -> SwinIR:
    """The golden configuration at scale 2, so that tiles are small: its multiple is 8."""
    torch.manual_seed(0)
    config = SwinIRConfig(**json.loads((GOLDEN / "instarevive" / "swinir.json").read_text())["swinir_config"])
    return SwinIR(replace(config, sf=2, unshuffle_scale=2, num_feat=8)).eval()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (1, 1), (7, 30), (65, 63), (1, 200)])
def test_any_size_comes_back_at_its_own_size_in_0_to_1(network: SwinIR, height: int, width: int) -> None:
    restored = pre_restore(PreRestorer(network), torch.rand(1, height, width, 3), 64)
    assert restored.shape == (1, height, width, 3)
    assert restored.min() >= 0 and restored.max() <= 1


def test_a_picture_that_fits_one_tile_is_the_networks_answer_clamped(network: SwinIR) -> None:
    picture = torch.rand(1, 40, 56, 3)
    with torch.inference_mode():
        expected = network(picture.permute(0, 3, 1, 2)).clamp(0, 1).permute(0, 2, 3, 1)
    assert torch.equal(pre_restore(PreRestorer(network), picture, 512), expected)


def test_a_border_is_reflected_around_the_picture_and_cropped_again(network: SwinIR) -> None:
    picture = torch.rand(1, 36, 60, 3)
    with torch.inference_mode():
        framed = network(torch.nn.functional.pad(picture.permute(0, 3, 1, 2), (6, 6, 6, 6), "reflect"))
    expected = framed[..., 6:-6, 6:-6].clamp(0, 1).permute(0, 2, 3, 1)
    assert torch.equal(pre_restore(PreRestorer(network, border=6), picture, 64), expected)


def test_a_picture_of_a_batch_equals_itself_restored_alone(network: SwinIR) -> None:
    pictures = torch.rand(3, 30, 100, 3)
    together = pre_restore(PreRestorer(network), pictures, 64)
    for index in range(3):
        assert torch.equal(together[index : index + 1], pre_restore(PreRestorer(network), pictures[index : index + 1], 64))


def test_tiles_are_proportional_to_the_pixels_and_any_micro_batch_gives_the_same_picture(network: SwinIR) -> None:
    seen: list[tuple[int, ...]] = []
    hook = network.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    picture = torch.rand(1, 192, 192, 3)
    one_by_one = pre_restore(PreRestorer(network), picture, 64)
    with using_host(LocalHost(device=torch.device("cpu"), micro_batch=3)):
        together = pre_restore(PreRestorer(network), picture, 64)
    hook.remove()
    assert seen == [(1, 3, 128, 128)] * 9 + [(3, 3, 128, 128)] * 3
    assert (together - one_by_one).abs().max() < 1e-5


def test_out_of_memory_means_smaller_tiles_and_a_log_line(network: SwinIR, caplog: pytest.LogCaptureFixture) -> None:
    def refuse_large(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs[0].shape[-1] > 128:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = network.register_forward_pre_hook(refuse_large)
    try:
        assert pre_restore(PreRestorer(network), torch.rand(1, 200, 256, 3), 256).shape == (1, 200, 256, 3)
    finally:
        hook.remove()
    assert [record.message for record in caplog.records] == [f"Out of memory: trying again with tiles of {tile}." for tile in (128, 64)]


def test_what_is_not_finite_is_refused_before_and_after(network: SwinIR) -> None:
    picture = torch.rand(1, 16, 16, 3)
    hook = network.register_forward_hook(lambda _, __, output: output / 0)
    try:
        with pytest.raises(KintsugiError, match="The coarse restoration has"):
            pre_restore(PreRestorer(network), picture, 64)
    finally:
        hook.remove()
    picture[0, 1, 2, 0] = torch.nan
    with pytest.raises(KintsugiError, match="The picture has 1 values"):
        pre_restore(PreRestorer(network), picture, 64)
