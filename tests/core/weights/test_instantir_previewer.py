"""The Previewer's files: InstantIR's own in the published names, and adapters of the U-Net alone such as the LCM-LoRA."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kintsugi.core.errors import WeightsError
from kintsugi.core.methods.instantir_parts import Previewer
from kintsugi.core.models.dcp import DCP
from kintsugi.core.models.lora_switch import Factors
from kintsugi.core.models.mini import build_unet
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights.instantir import load_previewer
from kintsugi.core.weights.previewer import previewer_targets, previewer_tensors, read_previewer
from kintsugi.core.weights.unet_lora import factor_shapes
from published_layouts import write_single_file
from tiny_instantir import FILES, RANK, RESAMPLER, UNET, drawn, empty_dcp, unet
from torch import Tensor, nn

# As the LCM-LoRA for SDXL was trained, but for its rank.
LCM_TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut",
    "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj",
)  # fmt: skip
ALPHA = 1.0


@pytest.fixture(scope="module")
def dcp() -> DCP:
    return empty_dcp()


@pytest.fixture(scope="module")
def factors(dcp: DCP) -> dict[str, Factors]:
    return {name: Factors(*drawn_pair(layer)) for name, layer in previewer_targets(unet(), dcp)}


def drawn_pair(layer: nn.Linear | nn.Conv2d) -> list[Tensor]:
    first, second = factor_shapes(layer, RANK)
    return list(drawn({"first": first, "second": second}).values())


def in_published_suffixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Some of the published names end otherwise than all the rest."""
    renamed = {name.replace(".lora.down.", ".lora_A.").replace(".lora.up.", ".lora_B."): name for name in FILES_PREVIEWER}
    return {renamed[name]: tensor for name, tensor in tensors.items()}


FILES_PREVIEWER = FILES["previewer_lora_weights.bin"]["tensors"]


@pytest.fixture
def file(tmp_path: Path, factors: dict[str, Factors]) -> Path:
    tensors = in_published_suffixes(previewer_tensors(factors, unet()))
    return write_single_file(tmp_path / "previewer_lora_weights.safetensors", tensors)


def assert_same(found: dict[str, Factors], expected: dict[str, Factors]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(one, other) for name in found for one, other in zip(found[name], expected[name], strict=True))


def test_published_names_are_read_to_the_bit_and_scaled_by_their_rank(file: Path, dcp: DCP, factors: dict[str, Factors]) -> None:
    previewer = read_previewer(file)
    assert (previewer.name, previewer.scale, previewer.merged) == ("previewer_lora_weights", 1 / RANK, False)
    assert_same(previewer.factors(unet(), dcp), factors)
    assert read_previewer(file, merged=True).merged


def test_what_is_written_has_exactly_the_published_names(factors: dict[str, Factors]) -> None:
    assert set(in_published_suffixes(previewer_tensors(factors, unet()))) == set(FILES_PREVIEWER)


def test_an_adapter_of_another_unet_or_resampler_is_told_by_its_widths(file: Path, dcp: DCP) -> None:
    wide = build_unet({**UNET, "block_out_channels": [4, 8, 8]})
    with pytest.raises(WeightsError, match=r"made for a U-Net of 4, 8, 12 channels, the prior has 4, 8, 8.*choose embedded everywhere"):
        read_previewer(file).factors(wide, dcp)
    other = DCP(dcp.widths, dcp.time_width, type(RESAMPLER)(**{**vars(RESAMPLER), "dim": 16}))
    with pytest.raises(WeightsError, match=r"made for a Resampler 8 wide, the DCP's is 16.*choose embedded everywhere") as refused:
        read_previewer(file).factors(unet(), other)
    assert str(file) in str(refused.value)


def test_a_file_of_another_part_is_refused(tmp_path: Path) -> None:
    path = write_single_file(tmp_path / "other.safetensors", {"ref_conv_in.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match="is not InstantIR's Previewer but its Aggregator"):
        read_previewer(path)


# --- adapters of the U-Net alone


def adapted_layers() -> dict[str, nn.Linear | nn.Conv2d]:
    layers = {name: layer for name, layer in unet().named_modules() if name.endswith(tuple(f".{target}" for target in LCM_TARGETS))}
    assert all(isinstance(layer, (nn.Linear, nn.Conv2d)) for layer in layers.values())
    return layers


def kohya_names(alpha: float | None = ALPHA) -> dict[str, Tensor]:
    found = {}
    for name, layer in adapted_layers().items():
        flat = f"lora_unet_{name.replace('.', '_')}"
        found[f"{flat}.lora_down.weight"], found[f"{flat}.lora_up.weight"] = drawn_pair(layer)
        found |= {} if alpha is None else {f"{flat}.alpha": torch.tensor(alpha)}
    return found


def dotted_names(first: str, second: str) -> dict[str, Tensor]:
    found = {}
    for name, layer in adapted_layers().items():
        found[f"unet.{name}.{first}.weight"], found[f"unet.{name}.{second}.weight"] = drawn_pair(layer)
    return found


def read_lora(host: LocalHost, tensors: dict[str, Tensor]) -> Previewer:
    write_single_file(host.folders.models / "loras" / "lcm.safetensors", tensors)
    return load_previewer("loras/lcm.safetensors")


def test_kohyas_names_find_every_layer_and_alpha_is_folded_in(host: LocalHost, dcp: DCP) -> None:
    previewer = read_lora(host, kohya_names())
    assert (previewer.name, previewer.scale) == ("lcm", 1.0)
    found = previewer.factors(unet(), dcp)
    assert found.keys() == {f"unet.{name}" for name in adapted_layers()}
    for name, layer in adapted_layers().items():
        first, second = drawn_pair(layer)
        assert torch.equal(found[f"unet.{name}"].first, first)
        assert torch.equal(found[f"unet.{name}"].second, second * (ALPHA / RANK))


@pytest.mark.parametrize(("first", "second"), [("lora_A", "lora_B"), ("lora.down", "lora.up")])
def test_names_of_diffusers_and_peft_mean_the_same_with_alpha_equal_to_the_rank(host: LocalHost, dcp: DCP, first: str, second: str) -> None:
    assert_same(
        read_lora(host, dotted_names(first, second)).factors(unet(), dcp), read_lora(host, kohya_names(alpha=None)).factors(unet(), dcp)
    )


def test_alpha_differs_from_layer_to_layer(host: LocalHost, dcp: DCP) -> None:
    tensors = kohya_names()
    tensors["lora_unet_mid_block_resnets_0_conv1.alpha"] = torch.tensor(2.0)
    found = read_lora(host, tensors).factors(unet(), dcp)
    expected = drawn_pair(unet().mid_block.resnets[0].conv1)[1]
    assert torch.equal(found["unet.mid_block.resnets.0.conv1"].second, expected * (2.0 / RANK))
    assert torch.equal(found["unet.mid_block.resnets.1.conv1"].second, expected * (ALPHA / RANK))


Change = Callable[[dict[str, Tensor]], object]
CONV = "lora_unet_mid_block_resnets_0_conv1"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda tensors: tensors.pop(f"{CONV}.lora_up.weight"), r"tensor mid_block\.resnets\.0\.conv1\.second is missing"),
        (lambda tensors: tensors.pop(f"{CONV}.lora_down.weight"), r"tensor mid_block\.resnets\.0\.conv1\.first is missing"),
        (
            lambda tensors: tensors.update({f"{CONV}.lora_up.weight": torch.zeros(12, 3, 1, 1)}),
            r"conv1\.second is \[12, 3, 1, 1\], expected \[12, 4, 1, 1\]",
        ),
        (lambda tensors: tensors.update({f"{CONV}.alpha": torch.zeros(2)}), r"conv1\.alpha is \[2\], expected \[\]"),
        (lambda tensors: tensors.update({f"{CONV}.dora_scale": torch.zeros(2)}), r"conv1\.dora_scale belongs to no layer"),
        (
            lambda tensors: tensors.update({"lora_unet_down_blocks_3_conv.alpha": torch.zeros(())}),
            r"lora_unet_down_blocks_3_conv\.alpha belongs to no layer",
        ),
        (
            lambda tensors: tensors.update({"unet.nowhere.lora_A.weight": torch.zeros(1)}),
            r"unet\.nowhere\.lora_A\.weight belongs to no layer",
        ),
        (lambda tensors: tensors.update({"lora_te1_layer.alpha": torch.zeros(())}), r"adapts a text encoder \(lora_te1_layer\.alpha\)"),
        (lambda tensors: tensors.update({"text_encoder.a.lora_A.weight": torch.zeros(1)}), "adapts a text encoder"),
        (
            lambda tensors: tensors.update({"lora_unet_down_blocks_3_resnets_0_conv1.lora_up.weight": torch.zeros(8, 4, 1, 1)}),
            "made for a U-Net of 4, 8, 12, 8 channels, the prior has 4, 8, 12",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_by_name(host: LocalHost, dcp: DCP, change: Change, fault: str) -> None:
    tensors = kohya_names()
    change(tensors)
    previewer = read_lora(host, tensors)
    with pytest.raises(WeightsError, match=fault) as refused:
        previewer.factors(unet(), dcp)
    assert "lcm.safetensors" in str(refused.value)


def test_a_file_of_loras_that_is_not_there_is_told(host: LocalHost) -> None:
    with pytest.raises(WeightsError, match=r"no weights named 'lcm\.safetensors' of kind 'loras'"):
        load_previewer("loras/lcm.safetensors")
