from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from golden_files import GOLDEN
from hypothesis import given
from hypothesis import strategies as st
from kintsugi.core.errors import BadValueError, Interrupted
from kintsugi.core.imaging.color_fix import METHODS, fix_colors, low_frequencies
from kintsugi.core.imaging.resize import resize
from kintsugi.core.imaging.tiling import Tile, blend_tiles, plan_tiles
from kintsugi.core.runtime import LocalHost
from PIL import Image
from safetensors.torch import load_file


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos", "nearest", "area"])
@pytest.mark.parametrize("size", [(20, 12), (70, 90)])
def test_resize_equals_pillow(method: str, size: tuple[int, int]) -> None:
    plane = torch.rand(40, 36, generator=torch.Generator().manual_seed(0))
    if method in ("area", "nearest"):  # equal to Pillow's at whole ratios only
        size = (20, 12)
    pillow = {"area": "BOX"}.get(method, method.upper())
    expected = Image.fromarray(plane.numpy()).resize((size[1], size[0]), Image.Resampling[pillow])
    found = resize(plane[None, None].expand(2, 3, -1, -1), *size, method)
    assert found.shape == (2, 3, *size)
    assert (found - torch.from_numpy(np.array(expected))).abs().max() < 5e-6


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    tile=st.integers(8, 96),
    overlap=st.integers(0, 7),
    multiple=st.sampled_from([1, 8]),
)
def test_tiles_are_equal_inside_and_cover_everything(height: int, width: int, tile: int, overlap: int, multiple: int) -> None:
    height, width, tile, overlap = (value * multiple for value in (height, width, tile, overlap))
    plan = plan_tiles(height, width, tile, overlap, multiple)
    assert {(t.height, t.width) for t in plan} == {(min(tile, height), min(tile, width))}
    for length, starts, size in (
        (height, sorted({t.top for t in plan}), plan[0].height),
        (width, sorted({t.left for t in plan}), plan[0].width),
    ):
        assert starts[0] == 0 and starts[-1] + size == length
        assert all(b - a <= tile - overlap and b > a for a, b in pairwise(starts))
        assert all(start % multiple == 0 for start in starts)


def test_number_of_tiles_is_proportional_to_the_pixels() -> None:
    counts = [len(plan_tiles(side, side, 576, 64, 8)) for side in (512, 1024, 2048, 4096)]
    assert counts == [1, 4, 16, 64]
    assert len(plan_tiles(4096, 20_480, 576, 64)) == 8 * 40


def test_impossible_tiles_are_refused() -> None:
    for arguments in ((64, 64, 16, 16), (63, 64, 16, 8, 8), (0, 5, 4, 1)):
        with pytest.raises(BadValueError):
            plan_tiles(*arguments)


@pytest.mark.parametrize(("scale", "run"), [(1, lambda x, _: x), (2, lambda x, _: x.repeat_interleave(2, 2).repeat_interleave(2, 3)),
                                            (Fraction(1, 4), lambda x, _: x[:, :, ::4, ::4])])  # fmt: skip
def test_blended_tiles_equal_the_whole_for_a_local_function(scale: Fraction | int, run: object) -> None:
    picture = torch.rand(2, 5, 100, 64, generator=torch.Generator().manual_seed(1))
    blended = blend_tiles(run, picture, plan_tiles(100, 64, 32, 8, 4), scale)
    assert blended.dtype == torch.float32
    assert (blended - run(picture, [])).abs().max() < 1e-6
    assert torch.equal(blend_tiles(run, picture, plan_tiles(100, 64, 128, 8, 4), scale), run(picture, []))


def test_blending_has_no_step_at_a_seam() -> None:
    offsets = iter(range(100))
    blended = blend_tiles(lambda x, _: x + next(offsets), torch.zeros(1, 1, 16, 160), plan_tiles(16, 160, 64, 32))
    assert blended.diff(dim=3).abs().max() <= 1 / 16 + 1e-6


def test_interruption_stops_between_tiles(host: LocalHost, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def stop() -> None:
        if len(calls) == 2:
            raise Interrupted

    monkeypatch.setattr(host, "check_interrupted", stop)
    with pytest.raises(Interrupted):
        blend_tiles(lambda x, _: calls.append(1) or x, torch.zeros(1, 1, 64, 64), plan_tiles(64, 64, 16, 0))
    assert len(calls) == 2


def test_wrong_tile_result_is_said() -> None:
    with pytest.raises(BadValueError, match="came back"):
        blend_tiles(lambda x, _: x[:, :, 1:], torch.zeros(1, 1, 8, 8), [Tile(0, 0, 8, 8)])


def close(found: torch.Tensor, reference: torch.Tensor, limit: float) -> None:
    assert (found - reference).abs().max() <= limit * reference.abs().max()


def test_color_fix_matches_the_original_of_tsd_sr() -> None:
    golden = load_file(GOLDEN / "tsd-sr" / "d_colour_fix.safetensors")
    limit = json.loads((GOLDEN / "tsd-sr" / "d_colour_fix.json").read_text())["tolerance"]["limit"]
    target, source, small = ((golden[name].float() / 255).permute(2, 0, 1)[None] for name in ("target", "source", "source_small"))
    close(low_frequencies(target), golden["wavelet_low"], limit)
    assert (target - low_frequencies(target) - golden["wavelet_high"]).abs().max() <= limit
    close(fix_colors(target, source, "wavelet"), golden["wavelet_float"], limit)
    close(fix_colors(target, small, "adain"), golden["adain_float"], limit)


def test_color_fix_matches_the_original_of_instarevive() -> None:
    golden = load_file(GOLDEN / "instarevive" / "colorfix_tiles.safetensors")
    limit = json.loads((GOLDEN / "instarevive" / "colorfix_tiles.json").read_text())["tolerance"]["limit"]
    close(fix_colors(golden["content"], golden["style"], "wavelet"), golden["wavelet"], limit)
    close(fix_colors(golden["content"], golden["style"], "adain"), golden["adain"], limit)


@pytest.mark.parametrize("method", ["wavelet", "lab"])
def test_color_fix_in_strips_equals_the_whole(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = torch.Generator().manual_seed(3)
    picture, reference = torch.rand(2, 3, 150, 40, generator=noise), torch.rand(1, 3, 40, 10, generator=noise)
    whole = fix_colors(picture, reference, method)
    monkeypatch.setattr("kintsugi.core.imaging.color_fix.STRIP_PIXELS", 40 * 33)
    assert (fix_colors(picture, reference, method) - whole).abs().max() <= (2e-5 if method == "lab" else 0)


@pytest.mark.parametrize("method", METHODS)
def test_color_fix_leaves_a_picture_with_its_own_colours_alone(method: str) -> None:
    picture = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(4))
    assert (fix_colors(picture, picture, method) - picture).abs().max() < 2e-3 if method == "lab" else 1e-5
    assert torch.equal(fix_colors(picture, 1 - picture, method, strength=0.0), picture)
    one = torch.rand(1, 3, 1, 1)
    assert torch.isfinite(fix_colors(one, one, method)).all()


def test_lab_fix_moves_the_hue_and_keeps_the_lightness() -> None:
    from kornia.color import rgb_to_lab

    grey = torch.full((1, 3, 64, 64), 0.5)
    reddish = torch.tensor([0.6, 0.45, 0.45]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    fixed = rgb_to_lab(fix_colors(grey, reddish, "lab"))
    assert (fixed[:, 0] - rgb_to_lab(grey)[:, 0]).abs().max() < 0.01
    assert (fixed[:, 1:] - rgb_to_lab(reddish)[:, 1:]).abs().max() < 0.05


def test_half_strength_is_half_the_correction() -> None:
    noise = torch.Generator().manual_seed(5)
    picture, reference = torch.rand(1, 3, 40, 40, generator=noise), torch.rand(1, 3, 40, 40, generator=noise)
    for method in ("wavelet", "adain"):
        middle = (picture + fix_colors(picture, reference, method)) / 2
        assert (fix_colors(picture, reference, method, 0.5) - middle).abs().max() < 1e-5
