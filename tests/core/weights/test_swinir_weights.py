"""Files of the coarse restorer: as published, as ours, refused by name; and what the embedded one does to a photo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_files import GOLDEN
from kintsugi.core.errors import WeightsError
from kintsugi.core.imaging.reading import read_photo
from kintsugi.core.methods.pre_restore import pre_restore
from kintsugi.core.quality import measure
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights import embedded
from kintsugi.core.weights.files import write_weights
from kintsugi.core.weights.swinir import PUBLISHED, load_swinir, read_swinir, swinir_choices
from safetensors.torch import load_file
from torch import Tensor

SAMPLE = Path(__file__).parents[3] / "docs" / "sample"
SIDECAR = json.loads((GOLDEN / "instarevive" / "swinir.json").read_text())
INDEX = "layers.0.residual_group.blocks.0.attn.relative_position_index"
MASK = "layers.0.residual_group.blocks.1.attn_mask"


def golden_tensors() -> dict[str, Tensor]:
    """Every tensor of a published file at a tiny size, those included that a loader may compute itself."""
    stored = load_file(GOLDEN / "instarevive" / "swinir.safetensors")
    return {name.removeprefix("w.swinir."): tensor for name, tensor in stored.items() if name.startswith("w.swinir.")}


def written(path: Path, tensors: dict[str, Tensor], **config: Any) -> Path:
    write_weights(path, tensors, {"swinir": SIDECAR["swinir_config"], **config}, torch.float32)
    return path


def test_published_names_load_with_and_without_a_wrapper_and_what_follows_from_the_rest(tmp_path: Path) -> None:
    tensors = golden_tensors()
    bare = {name: tensor for name, tensor in tensors.items() if name not in (INDEX, MASK)}
    wrapped = {f"module.{name}": tensor for name, tensor in tensors.items()}
    expected = read_swinir(written(tmp_path / "all.safetensors", tensors))
    assert INDEX in tensors and MASK in tensors and expected.border == 0
    for name, given in (("bare", bare), ("wrapped", wrapped)):
        found = read_swinir(written(tmp_path / f"{name}.safetensors", given))
        states = found.network.state_dict(), expected.network.state_dict()
        assert states[0].keys() == states[1].keys() and all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_what_is_read_is_written_and_read_again_to_the_bit(tmp_path: Path) -> None:
    first = read_swinir(written(tmp_path / "a.safetensors", golden_tensors())).network.state_dict()
    again = read_swinir(written(tmp_path / "b.safetensors", dict(first), border=4))
    assert again.border == 4
    assert all(torch.equal(tensor, golden_tensors()[name]) for name, tensor in again.network.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "config", "fault"),
    [
        ({"norm.bias": None}, {}, r"tensor norm\.bias is missing"),
        ({"extra": torch.zeros(1)}, {}, "tensor extra is unknown"),
        ({"norm.bias": torch.zeros(7)}, {}, r"tensor norm\.bias is \[7\], expected \[12\]"),
        ({INDEX: torch.zeros(9, 9)}, {}, r"relative_position_index is \[9, 9\], expected \[16, 16\]"),
        ({MASK: torch.zeros(1, 16, 16)}, {}, r"attn_mask is \[1, 16, 16\], expected \[4, 16, 16\]"),
        ({}, {"kind": "vae"}, "holds vae, not swinir"),
        ({}, {"swinir": {"upsampler": "pixelshuffle"}}, "its configuration is not that of a coarse restorer"),
        ({}, {"swinir": {**SIDECAR["swinir_config"], "sf": 4}}, "sf is 4 and unshuffle_scale 8"),
        ({}, {"swinir": None}, r"relative_position_index is \[16, 16\], expected \[64, 64\]"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Tensor | None], config: dict[str, Any], fault: str
) -> None:
    tensors = {name: tensor for name, tensor in {**golden_tensors(), **changes}.items() if tensor is not None}
    path = written(tmp_path / "a.safetensors", tensors, **config)
    with pytest.raises(WeightsError, match=fault) as refused:
        read_swinir(path)
    assert str(path) in str(refused.value)


def test_auto_takes_the_published_general_restorer_and_the_widget_lists_the_folder(
    host: LocalHost, caplog: pytest.LogCaptureFixture
) -> None:
    assert swinir_choices() == ["auto", "embedded"]
    with caplog.at_level("INFO", "kintsugi"):
        assert load_swinir().network.config.embed_dim == 48
    assert "the small embedded ones" in caplog.text
    folder = host.folders.models / "kintsugi"
    for name in (PUBLISHED, "swinir/face_swinir_v1.safetensors"):
        written(folder / name, golden_tensors())
    assert swinir_choices() == ["auto", "embedded", "swinir/face_swinir_v1.safetensors", PUBLISHED]
    assert [load_swinir(name).network.config.embed_dim for name in ("auto", "embedded", PUBLISHED)] == [12, 48, 12]
    assert next(load_swinir("auto", "bf16").network.parameters()).dtype == torch.bfloat16


def test_the_embedded_restorer_is_small_and_gains_a_decibel_on_the_sample_photo() -> None:
    assert embedded.SWINIR.stat().st_size <= 3 * 2**20
    assert embedded.SWINIR.with_suffix(".md").read_text().startswith("# ")
    damaged, clean = (read_photo(SAMPLE / name).picture for name in ("sample.jpg", "clean.png"))
    restored = pre_restore(load_swinir("embedded", "fp32"), damaged, 512)
    before, after = (measure(picture.movedim(-1, 1), clean.movedim(-1, 1), ["psnr", "ssim"]) for picture in (damaged, restored))
    assert after["psnr"] >= before["psnr"] + 1
    assert after["ssim"] > before["ssim"]


@pytest.mark.parametrize("color", [(10, 200, 30), (255, 255, 255), (0, 0, 0), (200, 30, 30), (128, 128, 128)])
def test_a_flat_surface_stays_flat_up_to_its_edges_whatever_the_tiles(color: tuple[int, int, int]) -> None:
    flat = (torch.tensor(color) / 255).expand(1, 100, 160, 3).clone()
    assert ((pre_restore(load_swinir("embedded", "fp32"), flat, 64) - flat).abs().max() * 255).item() <= 2
