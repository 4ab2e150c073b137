"""InstantIR's stand-ins: four files in the published names for one tiny SDXL, which together give the degraded picture back.

The U-Net predicts no noise and the Aggregator adds nothing. A schedule with next to no noise in it then leaves the degraded latent
as it is, and so every preview and the result are the picture as the embedded VAE makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from kintsugi.core.models.aggregator import Aggregator
from kintsugi.core.models.byte_text import ByteTextEncoder
from kintsugi.core.models.dcp import DCP, cross_attention_widths
from kintsugi.core.models.lora_switch import Factors
from kintsugi.core.models.mini import build_unet
from kintsugi.core.models.resampler import ResamplerConfig
from kintsugi.core.weights.diffusers_folders import read_network_folder
from kintsugi.core.weights.previewer import previewer_targets, previewer_tensors
from kintsugi.core.weights.unet_lora import factor_shapes
from torch import Tensor, nn

PROMPT = {"tokens": 77, "width": 8, "pooled": 8}
SIZE_WIDTH = 4
# A level more than SDXL has, because a pixel of these latents stands for half as many: attention looks at patches of the same size.
UNET = {
    "sample_size": 32, "in_channels": 16, "out_channels": 16, "block_out_channels": [4, 4, 4, 8], "layers_per_block": 1,
    "norm_num_groups": 2, "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": 1, "attention_head_dim": [1, 1, 1, 2], "use_linear_projection": True,
    "cross_attention_dim": PROMPT["width"], "addition_embed_type": "text_time", "addition_time_embed_dim": SIZE_WIDTH,
    "projection_class_embeddings_input_dim": PROMPT["pooled"] + 6 * SIZE_WIDTH,
}  # fmt: skip
# In single precision the running product must be below one at timestep 1, else its steps divide by zero; it hardly falls after that.
BETAS = (1.2e-7, 1e-12)
ENCODER = {
    "model_type": "dinov2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14, "image_size": 224
}  # fmt: skip
RESAMPLER = ResamplerConfig(
    dim=16, depth=1, dim_head=8, heads=2, num_queries=4, embedding_dim=ENCODER["hidden_size"], output_dim=PROMPT["width"]
)
RANK = 4

CARD = """# untrained-{name}

Untrained. {what}
The four files of InstantIR that are called `untrained` belong together and give the picture back as the embedded VAE makes it, neither
restored nor sharpened. They only prove that InstantIR runs from one end to the other, until weights from its own training take their
place. For restoring pictures put the published files into kintsugi/instantir and SDXL into checkpoints (`kintsugi models list` says
from where), or choose another method.

Made by `python tools/make_untrained.py {name}`. {count} parameters, fp16. Licence: Apache-2.0.
"""

Contents = tuple[dict[str, Tensor], dict[str, Any]]


def silent_unet() -> Any:
    """The U-Net that all four files belong to, whose last convolution answers zero."""
    unet = build_unet(UNET)
    silence(unet.conv_out)
    return unet


def silence(layer: nn.Linear | nn.Conv2d) -> None:
    """Make the layer answer zero, whatever it is asked."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def random_dcp() -> DCP:
    unet = build_unet(UNET)
    return DCP(cross_attention_widths(unet), unet.time_embedding.linear_2.out_features, RESAMPLER)


def prior() -> Contents:
    """Tensors `unet.*` and `text.*`, as core/weights/priors.py reads them."""
    parts = nn.ModuleDict({"unet": silent_unet(), "text": ByteTextEncoder(**PROMPT)})
    config = {"kind": "prior", "family": "sdxl", "unet": UNET, "text": PROMPT, "vae": "embedded", "betas": BETAS}
    return dict(parts.state_dict()), config


def dcp() -> Contents:
    """The published names, and a DINOv2 below `encoder.`, in the names of its release too."""
    from transformers import Dinov2Config, Dinov2Model

    network = random_dcp()
    with TemporaryDirectory() as folder:
        Dinov2Model(Dinov2Config.from_dict(ENCODER)).save_pretrained(folder)
        encoder = read_network_folder(Path(folder))
    tensors = {**network.state_dict(), **{f"encoder.{name}": tensor for name, tensor in encoder.tensors.items()}}
    return tensors, {"kind": "dcp", "dim_head": RESAMPLER.dim_head, "encoder": ENCODER}


def previewer() -> Contents:
    """The published names. The second factors are zero, as before training."""
    unet, network = build_unet(UNET), random_dcp()
    factors = {}
    for name, layer in previewer_targets(unet, network):
        first, second = factor_shapes(layer, RANK)
        factors[name] = Factors(torch.randn(first) / RANK, torch.zeros(second))
    return previewer_tensors(factors, unet), {"kind": "previewer"}


def aggregator() -> Contents:
    """The published names. The convolutions that make the residuals are zero, as before training."""
    return dict(Aggregator(build_unet(UNET)).state_dict()), {"kind": "aggregator", "unet": UNET}


BUILDERS: dict[str, Callable[[], Contents]] = {
    "instantir-prior": prior,
    "instantir-dcp": dcp,
    "instantir-previewer": previewer,
    "instantir-aggregator": aggregator,
}
WHAT = {
    "instantir-prior": (
        "A U-Net of SDXL's class at the smallest size, random but for its last layer, which is zero, so that it finds no noise\n"
        "anywhere; a text encoder of bytes, whose embeddings mean nothing; and a schedule that adds next to no noise."
    ),
    "instantir-dcp": "InstantIR's Resampler and decoupled attentions at the smallest size, random, with the DINOv2 that sees for them.",
    "instantir-previewer": (
        "InstantIR's Previewer for networks of the smallest size: an adapter whose second factors are zero, so that it changes\nnothing."
    ),
    "instantir-aggregator": (
        "InstantIR's Aggregator at the smallest size, random but for the convolutions that make its residuals, which are zero."
    ),
}


def card(name: str, count: int) -> str:
    """The model card of a stand-in with that many parameters."""
    return CARD.format(name=name, what=WHAT[name], count=f"{count:,}")
