"""InstantIR put together for one run: the prior's U-Net with perception and previewer attached, and what is constant in that run.

Afterwards the prior is as it was, so that other nodes may use it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from ..diffusion import NoiseSchedule
from ..errors import BadValueError
from ..models.aggregator import Aggregator
from ..models.dcp import DCP, cross_attention_levels
from ..models.instant_unet import InstantUNet
from ..models.lora_switch import Factors, LoraSwitch
from ..models.offload import Offload
from ..models.prior import Prior
from ..runtime import current_host
from .instantir_networks import Conditions, InstantIR
from .instantir_parts import LqContext, Previewer

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

# Where weights stay on the device, so that single layers can be called.
RESIDENT: tuple[Offload, ...] = ("none", "layerwise fp8")


@contextmanager
def assembled(prior: Prior, context: LqContext, previewer: Previewer, aggregator: Aggregator | None) -> Iterator[InstantIR]:
    """The networks of a run, usable inside the block.

    aggregator: None where nothing but previews is wanted. Raises BadValueError for a prior that is not SDXL or has no network,
    for parts that do not fit it, for weights that are not one per level, and for a merged previewer on an offloaded prior;
    WeightsError for a previewer's file of another network.
    """
    unet, schedule = _network_of(prior)
    dcp = context.perceptor.dcp
    if aggregator is not None:
        aggregator.require_fit(unet)
    with dcp.attached(unet):
        network = InstantUNet(unet, dcp, layer_weights(unet, context.weights), prior.offload in RESIDENT)
        yield InstantIR(network, _switch(prior, unet, dcp, previewer), aggregator, schedule)


@torch.inference_mode()
def conditions_of(networks: InstantIR, image_tokens: Tensor, text: Tensor, pooled: Tensor, size_ids: Tensor) -> Conditions:
    """What steers every call of a run, from the encoder's tokens [R, N, D], prompts [R, L, D] with pooled [R, P], and size_ids [R, 6]
    (height, width, top, left, height, width in pixels); on the host's device.

    Everything that depends on neither time nor latent is computed here, once. Raises BadValueError for prompts of another model.
    """
    unet, device = networks.unet, current_host().device
    require_prompt(unet.unet, text, pooled)
    text, pooled = (part.to(device, unet.unet.dtype) for part in (text, pooled))
    tokens = image_tokens.to(device, unet.dcp.image_proj.latents.dtype)
    own = (unet.text_keys(text), unet.image_keys(tokens))
    with networks.previewer.on():
        ahead = (unet.text_keys(text), unet.image_keys(tokens))
    return Conditions(pooled, size_ids.to(device), text, *own, *ahead)


def layer_weights(unet: UNet2DConditionModel, weights: Sequence[float]) -> dict[int, float]:
    """w of equation 3 by processor index, from one for all or one per level with cross-attentions, fine to coarse.

    Raises BadValueError for another number of them.
    """
    levels = cross_attention_levels(unet)
    count = max(levels.values()) + 1
    if len(weights) not in (1, count):
        raise BadValueError(
            f"{len(weights)} weights of the image are given, the prior has {count} levels with cross-attentions.",
            where="image_weights",
            way_out=f"Give one for all, or {count}, from the finest level to the coarsest.",
        )
    return {index: weights[level if len(weights) > 1 else 0] for index, level in levels.items()}


def require_prompt(unet: UNet2DConditionModel, text: Tensor, pooled: Tensor) -> None:
    """Raise BadValueError when the prompt was encoded for another network."""
    config = unet.config
    expected = (config.cross_attention_dim, config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim)
    found = (text.shape[-1], pooled.shape[-1])
    if found != expected:
        raise BadValueError(
            f"its tokens and pooled embedding are {found[0]} and {found[1]} wide, the prior reads {expected[0]} and {expected[1]}.",
            where="prompt",
            way_out="Encode it with the text encoders of the same prior.",
        )


def _network_of(prior: Prior) -> tuple[UNet2DConditionModel, NoiseSchedule]:
    way_out = "Load one whole with Load Prior: family sdxl."
    if prior.family != "sdxl":
        raise BadValueError(f"InstantIR needs an SDXL prior, found {prior.family}.", where="prior", way_out=way_out)
    if prior.denoiser is None or prior.schedule is None:
        raise BadValueError("InstantIR needs an SDXL prior with its U-Net, found a VAE alone.", where="prior", way_out=way_out)
    return cast("UNet2DConditionModel", prior.denoiser()), prior.schedule


def _switch(prior: Prior, unet: UNet2DConditionModel, dcp: DCP, previewer: Previewer) -> LoraSwitch:
    if previewer.merged and prior.offload != "none":
        raise BadValueError(
            f"adapted weights lie beside the prior's own, but those are offloaded ({prior.offload}).",
            where="Previewer",
            way_out="Load the Previewer without merging, or the prior with offload none.",
        )
    device = current_host().device
    if previewer.merged:
        current_host().hold(unet)  # Its weights are read without calling it.
    dtypes = {"unet": prior.dtype, "dcp": dcp.image_proj.latents.dtype}
    factors = {
        name: Factors(*(factor.to(device, dtypes[name.partition(".")[0]]) for factor in pair))
        for name, pair in previewer.factors(unet, dcp).items()
    }
    return LoraSwitch(nn.ModuleDict({"unet": unet, "dcp": dcp}), factors, previewer.scale, previewer.merged)
