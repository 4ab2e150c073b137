"""InstantIR at full size, without a weight: names and shapes of its networks are those of the published files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from golden_files import GOLDEN
from kintsugi.core.errors import WeightsError
from kintsugi.core.models.aggregator import Aggregator
from kintsugi.core.models.dcp import DCP, cross_attention_widths
from kintsugi.core.models.mini import build_unet
from kintsugi.core.models.resampler import ResamplerConfig
from kintsugi.core.weights.previewer import RANK, previewer_factors
from torch import Tensor, nn

MANIFEST: dict[str, Any] = json.loads((GOLDEN / "instantir" / "manifest.json").read_text(encoding="utf-8"))
FILES: dict[str, Any] = MANIFEST["files"]


@pytest.fixture(scope="module")
def unet() -> Any:
    with torch.device("meta"):
        return build_unet(MANIFEST["sdxl_unet_config"])


@pytest.fixture(scope="module")
def dcp(unet: Any) -> DCP:
    with torch.device("meta"):
        return DCP(cross_attention_widths(unet), unet.time_embedding.linear_2.out_features, ResamplerConfig())


def shapes_of(module: nn.Module) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in module.state_dict().items()}


def stored(shapes: Mapping[str, list[int]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def test_attention_processors_are_counted_as_published(unet: Any) -> None:
    assert dict(enumerate(unet.attn_processors)) == {int(index): name for index, name in MANIFEST["attn_processor_order"].items()}
    assert sum(parameter.numel() for parameter in unet.parameters()) == MANIFEST["unet_parameters"]


def test_the_adapter_is_resampler_and_decoupled_attentions(dcp: DCP) -> None:
    file = FILES["adapter.pt"]
    expected = {f"{part}.{name}": shape for part in ("image_proj", "ip_adapter") for name, shape in file[part].items()}
    assert shapes_of(dcp) == expected
    assert sum(parameter.numel() for parameter in dcp.parameters()) == file["parameters"]


def test_the_aggregator_is_the_encoder_without_text(unet: Any) -> None:
    with torch.device("meta"):
        aggregator = Aggregator(build_unet(MANIFEST["sdxl_unet_config"]))
    assert shapes_of(aggregator) == FILES["aggregator.pt"]["tensors"]


def test_the_previewer_adapts_exactly_the_published_layers(unet: Any, dcp: DCP) -> None:
    tensors = stored(FILES["previewer_lora_weights.bin"]["tensors"])
    factors = previewer_factors(tensors, unet, dcp, RANK, "previewer")
    assert len(factors) == 942
    renamed = {name.replace(".lora.down.", ".lora_A.").replace(".lora.up.", ".lora_B."): tensor for name, tensor in tensors.items()}
    assert previewer_factors(renamed, unet, dcp, RANK, "previewer").keys() == factors.keys()


def test_a_previewer_with_a_factor_too_few_or_too_many_is_refused_by_name(unet: Any, dcp: DCP) -> None:
    tensors = stored(FILES["previewer_lora_weights.bin"]["tensors"])
    half = dict(tensors)
    del half["unet.mid_block.resnets.0.conv1.lora_B.weight"]
    with pytest.raises(WeightsError, match=r"unet\.mid_block\.resnets\.0\.conv1\.second is missing"):
        previewer_factors(half, unet, dcp, RANK, "previewer")
    with pytest.raises(WeightsError, match=r"unet\.nowhere\.first is unknown"):
        previewer_factors({**tensors, "unet.nowhere.lora_A.weight": torch.empty(1, device="meta")}, unet, dcp, RANK, "previewer")
    with pytest.raises(WeightsError, match="no factor of a low-rank adapter"):
        previewer_factors({"text_encoder.weight": torch.empty(1)}, unet, dcp, RANK, "previewer")
