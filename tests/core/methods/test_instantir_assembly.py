"""InstantIR put together on a prior: what it says is the same wherever weights lie, and nothing of it stays behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from golden_files import GOLDEN
from kintsugi.core.errors import BadValueError
from kintsugi.core.methods.instantir_assembly import assembled, conditions_of, layer_weights
from kintsugi.core.methods.instantir_networks import Conditions, InstantIR, Steering
from kintsugi.core.methods.instantir_parts import LqContext, Perceptor, Previewer
from kintsugi.core.models.aggregator import Aggregator
from kintsugi.core.models.codec import LatentCodec
from kintsugi.core.models.dcp import DCP, cross_attention_levels, cross_attention_widths
from kintsugi.core.models.lora_switch import Factors
from kintsugi.core.models.mini import build_unet, build_vae, vae_config
from kintsugi.core.models.offload import Offload, place
from kintsugi.core.models.prior import Prior
from kintsugi.core.models.resampler import ResamplerConfig
from kintsugi.core.runtime import LocalHost, using_host
from kintsugi.core.weights.previewer import previewer_factors
from parity_cases.instantir import Networks
from parity_cases.sidecar import Sidecar
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

INPUTS = Sidecar.read(GOLDEN / "instantir" / "f_inputs.json")
assert INPUTS is not None
UNCONDITIONAL = ("uncond_image_tokens", "negative_prompt_embeds", "negative_pooled", "time_ids")
CONDITIONAL = ("image_tokens", "prompt_embeds", "pooled", "time_ids")
ENCODER = Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=1, image_size=14, patch_size=14)


@dataclass(frozen=True)
class Parts:
    """What the sockets of a run carry."""

    prior: Prior
    context: LqContext
    previewer: Previewer
    aggregator: Aggregator


def parts_of(dtype: torch.dtype = torch.float32, offload: Offload = "none", merged: bool = False) -> Parts:
    """The golden networks, freshly loaded, the prior and the Aggregator placed in that way."""
    sidecar = Sidecar.read(GOLDEN / "instantir" / "f_loop_default.json")
    assert sidecar is not None and INPUTS is not None
    networks = Networks(sidecar)
    unet, dcp, lora = place(networks.plain_unet(), dtype, offload), place(networks.dcp, dtype), networks.config["lora"]
    stored, rank = networks.weights("previewer_lora"), lora["rank"]
    codec = LatentCodec(build_vae(vae_config((8, 8), 4, 1, 4)))
    return Parts(
        Prior("sdxl", codec, lambda: unet, None, networks.schedule, dtype, offload),
        LqContext(Perceptor("golden", dcp, Dinov2Model(ENCODER)), INPUTS.tensor("image_tokens"), INPUTS.tensor("uncond_image_tokens")),
        Previewer("golden", lambda unet, dcp: previewer_factors(stored, unet, dcp, rank, "golden"), lora["alpha"] / rank, merged),
        place(networks.aggregator, dtype, offload),
    )


@pytest.fixture(scope="module")
def parts() -> Parts:
    return parts_of()


def unet_of(parts: Parts) -> Any:
    assert parts.prior.denoiser is not None
    return parts.prior.denoiser()


@contextmanager
def running(parts: Parts) -> Iterator[tuple[InstantIR, Conditions]]:
    assert INPUTS is not None
    rows = [torch.cat([INPUTS.tensor(name) for name in pair]) for pair in zip(UNCONDITIONAL, CONDITIONAL, strict=True)]
    with torch.inference_mode(), assembled(parts.prior, parts.context, parts.previewer, parts.aggregator) as networks:
        yield networks, conditions_of(networks, *rows)


def predictions(parts: Parts, device: str = "cpu") -> list[Tensor]:
    """The Previewer's noise and the U-Net's, twice, since a call must leave things as it found them."""
    assert INPUTS is not None
    z = torch.cat([INPUTS.tensor("lq_latent")] * 2).to(device)
    t = torch.full((2,), 501, device=device)
    told = []
    with running(parts) as (networks, conditions):
        for _ in range(2):
            look = networks.preview(z, t, conditions)
            steering = Steering(z, look.latent, torch.ones(2, device=device))
            told += [look.eps, networks.denoise(z, t, conditions, steering, []).eps]
    return told


@pytest.mark.parametrize("offload", ["model", "group"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_come_for_a_call_say_the_same_to_the_bit(dtype: torch.dtype, offload: Offload) -> None:
    expected, found = predictions(parts_of(dtype)), predictions(parts_of(dtype, offload))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])


def test_a_previewer_that_adapts_the_keys_of_text_reads_its_own() -> None:
    """As the LCM-LoRA does; the U-Net's own stay as they are."""

    def adapt_text(unet: nn.Module, dcp: DCP) -> dict[str, Factors]:
        layers = {f"unet.{name}": layer for name, layer in unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))}
        torch.manual_seed(0)
        return {name: Factors(torch.randn(2, layer.in_features), torch.randn(layer.out_features, 2)) for name, layer in layers.items()}

    plain = predictions(parts_of())
    resident, coming = (parts_of(offload=offload) for offload in ("none", "model"))
    once, live = (predictions(replace(parts, previewer=Previewer("text", adapt_text, 1.0))) for parts in (resident, coming))
    assert all(torch.equal(*pair) for pair in zip(once, live, strict=True))
    assert not torch.equal(once[0], plain[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eight_bits_are_close(dtype: torch.dtype, parts: Parts) -> None:
    found = predictions(parts_of(dtype, "layerwise fp8"))
    # Three bits of mantissa round by 3 % on average; measured at most 6.9 % of the largest value, for the Previewer.
    assert all(0 < (one - other).abs().max() <= 0.1 * other.abs().max() for one, other in zip(found, predictions(parts), strict=True))


def test_weights_and_inputs_meet_on_the_device() -> None:
    """The meta device stands for one with memory of its own; diffusers' groups do not know it."""
    with using_host(LocalHost(device=torch.device("meta"))):
        for offload in ("none", "model", "layerwise fp8"):
            parts = parts_of(offload=offload)
            assert {eps.device.type for eps in predictions(parts, "meta")} == {"meta"}
            assert next(unet_of(parts).parameters()).device.type == ("cpu" if offload == "model" else "meta")


def test_merged_weights_say_the_same_as_live_products(parts: Parts) -> None:
    for live, merged in zip(predictions(parts), predictions(parts_of(merged=True)), strict=True):
        assert (live - merged).abs().max() <= 1e-5 * live.abs().max()


def traces(network: nn.Module) -> list[object]:
    """Whatever a run could leave: hooks, processors, other weights."""
    hooks = [(name, [*module._forward_hooks], [*module._forward_pre_hooks]) for name, module in network.named_modules()]
    return [hooks, [id(parameter) for parameter in network.parameters()], [parameter.data_ptr() for parameter in network.parameters()]]


@pytest.mark.parametrize("merged", [False, True])
def test_nothing_of_a_run_stays_on_prior_and_dcp_not_even_after_an_error(merged: bool) -> None:
    parts = parts_of(merged=merged)
    unet, dcp = unet_of(parts), parts.context.perceptor.dcp
    before, processors = traces(unet) + traces(dcp), {name: id(found) for name, found in unet.attn_processors.items()}

    def fail(*_: object) -> None:
        raise RuntimeError("in the middle of a preview")

    predictions(parts)
    breaking = unet.mid_block.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        predictions(parts)
    breaking.remove()
    assert traces(unet) + traces(dcp) == before
    assert {name: id(found) for name, found in unet.attn_processors.items()} == processors
    assert dcp.sight.time_embedding is None


def test_previews_need_no_aggregator(parts: Parts) -> None:
    with assembled(parts.prior, parts.context, parts.previewer, None) as networks:
        assert networks.aggregator is None


def test_without_weight_the_image_leaves_plain_text_attention(parts: Parts) -> None:
    assert INPUTS is not None
    text, pooled = INPUTS.tensor("prompt_embeds"), INPUTS.tensor("pooled")
    latent, t, size_ids = INPUTS.tensor("lq_latent"), torch.tensor([501]), INPUTS.tensor("time_ids")
    with torch.inference_mode():
        expected = unet_of(parts)(latent, t, text, added_cond_kwargs={"text_embeds": pooled, "time_ids": size_ids}).sample
        with running(replace(parts, context=replace(parts.context, weights=(0.0,)))) as (networks, conditions):
            torch.testing.assert_close(networks.denoise(latent, t, conditions.last(1), None, []).eps, expected, rtol=0, atol=1e-6)
        with running(parts) as (networks, conditions):
            assert not torch.equal(networks.denoise(latent, t, conditions.last(1), None, []).eps, expected)


SDXL_LIKE: dict[str, Any] = {
    "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": [8, 16, 32], "layers_per_block": 2, "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], "transformer_layers_per_block": [1, 1, 2],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "attention_head_dim": [2, 4, 8],
    "cross_attention_dim": 32, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 80, "use_linear_projection": True,
}  # fmt: skip


def test_weights_go_by_level_and_the_middle_with_the_coarsest() -> None:
    unet = build_unet(SDXL_LIKE)
    widths, weights = cross_attention_widths(unet), layer_weights(unet, (0.5, 2.0))
    assert {(widths[index], weight) for index, weight in weights.items()} == {(16, 0.5), (32, 2.0)}
    assert len(widths) == 2 * (1 + 2) + 3 * (1 + 2) + 2 and layer_weights(unet, (0.7,)) == dict.fromkeys(widths, 0.7)
    assert cross_attention_levels(unet).keys() == widths.keys()


def test_another_number_of_weights_is_refused_with_the_number_of_levels(parts: Parts) -> None:
    with pytest.raises(BadValueError, match=r"2 weights of the image are given, the prior has 1 levels"):
        layer_weights(unet_of(parts), (1.0, 1.0))
    with pytest.raises(BadValueError, match=r"3 weights of the image are given, the prior has 2 levels"):
        layer_weights(build_unet(SDXL_LIKE), (1.0, 1.0, 1.0))


def refused(parts: Parts, message: str) -> None:
    with pytest.raises(BadValueError, match=message), running(parts):
        pass


def test_an_aggregator_of_another_network_is_refused(parts: Parts) -> None:
    config = dict(unet_of(parts).config)
    for change, told in (
        ({"in_channels": 9}, "latents of 9 channels.* the prior has latents of 4"),
        ({"block_out_channels": [32, 32]}, "features of 32, 32, 32, 32, 32 channels, the prior has .* 32, 32, 32, 64, 64"),
        ({"projection_class_embeddings_input_dim": 88}, "embeddings of 88 and 32 numbers .* the prior has .* 80 and 32"),
    ):
        refused(replace(parts, aggregator=Aggregator(build_unet({**config, **change}))), f"Aggregator: it is made for .*{told}")


def test_a_dcp_of_another_network_is_refused(parts: Parts) -> None:
    widths, sizes = parts.context.perceptor.dcp.widths, ResamplerConfig(16, 1, 8, 2, 4, 24, 32)
    for dcp, told in (
        (DCP({**widths, 99: 64}, 128, sizes), f"{len(widths) + 1} cross-attentions"),
        (DCP(widths, 64, sizes), "embedding of 64, the prior has .* embedding of 128"),
    ):
        other = replace(parts.context, perceptor=replace(parts.context.perceptor, dcp=dcp))
        refused(replace(parts, context=other), f"DCP: it is made for .*{told}")


def test_a_prior_of_another_family_or_without_its_network_is_refused(parts: Parts) -> None:
    refused(replace(parts, prior=replace(parts.prior, family="sd3")), "InstantIR needs an SDXL prior, found sd3")
    for lacking in ({"denoiser": None}, {"schedule": None}):
        refused(replace(parts, prior=replace(parts.prior, **lacking)), "needs an SDXL prior with its U-Net, found a VAE alone")


def test_merged_weights_beside_offloaded_ones_are_refused(parts: Parts) -> None:
    merged = replace(parts, previewer=replace(parts.previewer, merged=True))
    for offload in ("model", "group", "layerwise fp8"):
        refused(replace(merged, prior=replace(parts.prior, offload=offload)), rf"those are offloaded \({offload}\)")


def test_a_prompt_of_another_text_encoder_is_refused(parts: Parts) -> None:
    assert INPUTS is not None
    tokens, _, pooled, size_ids = (INPUTS.tensor(name) for name in CONDITIONAL)
    with assembled(parts.prior, parts.context, parts.previewer, None) as networks, pytest.raises(BadValueError, match="768 and 32 wide"):
        conditions_of(networks, tokens, torch.zeros(1, 77, 768), pooled, size_ids)
