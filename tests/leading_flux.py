"""A tiny Flux and its adapter, made by hand, which together lead the noise back to the degraded picture.

All gates of all blocks are zero, so that tokens pass them unchanged and what is left is linear: a latent goes into 64 channels beside
two constants so large that the last norm divides by next to nothing else, and comes out as the velocity
v = (z - z_lq) / sigma, on which Euler steps of any schedule end at z_lq. Of that, z / (2 sigma) is the Flux's own; the adapter adds
(z - 2 z_lq) / (2 sigma).
"""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.embeddings import get_timestep_embedding
from kintsugi.core.models.byte_text import ByteTextEncoder
from kintsugi.core.models.flux_adapter import THOUSAND, FluxAdapter
from kintsugi.core.weights.files import write_weights
from torch import Tensor, nn

CHANNELS = 64
# Beside the latent two channels for the constants, K and -K; minus half the latent's sum in each of them keeps the mean at zero.
WIDTH = CHANNELS + 2
CONSTANT = 240.0
PROMPT = {"tokens": 64, "width": 8, "pooled": 8}
FLUX: dict[str, Any] = {
    "in_channels": CHANNELS, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 22, "num_attention_heads": WIDTH // 22,
    "joint_attention_dim": PROMPT["width"], "pooled_projection_dim": PROMPT["pooled"], "guidance_embeds": True,
    "axes_dims_rope": [6, 8, 8],
}  # fmt: skip
# The last layer's numbers, and how much of 1 / sigma one channel of the embedded time is.
OUT, TIME = 16.0, 8.0
# The time's slowest sines grow as long as sigma does. Their sum, multiplied so and taken from BEND, tells whether sigma is below a knot.
# The knots lie eight to an octave, from above 1 down to 1 / 70.
SINES, TIMES = 32, 256
MULTIPLIERS = (torch.arange(1, 2, 0.125) * 2.0 ** torch.arange(2, 9)[:, None]).flatten()[4:-1]
BEND = 80.0


def write_leading_prior(path: Path) -> Path:
    """A file as the prior's training writes it, with the embedded VAE."""
    torch.manual_seed(0)
    parts = nn.ModuleDict({"transformer": halving_flux(), "text": ByteTextEncoder(**PROMPT)})
    config = {"kind": "prior", "family": "flux", "transformer": FLUX, "text": PROMPT, "vae": "embedded"}
    write_weights(path, parts.state_dict(), config, None)
    return path


@torch.no_grad()
def halving_flux() -> Any:
    """A Flux whose velocity is z / (2 sigma), whatever the prompt and the guidance."""
    flux = FluxTransformer2DModel.from_config(FLUX)
    close_gates(flux)
    flux.x_embedder.weight.copy_(spread())
    flux.x_embedder.bias.copy_(torch.tensor([0.0] * CHANNELS + [CONSTANT, -CONSTANT]))
    for embedder in (flux.time_text_embed.guidance_embedder, flux.time_text_embed.text_embedder):
        silence(embedder.linear_2)
    # The norm divides by the root of the mean square, nearly that of the constants alone.
    divisor = CONSTANT * sqrt(2 / WIDTH)
    tell_time(flux.time_text_embed.timestep_embedder, TIME * divisor / (2 * OUT))
    silence(flux.norm_out.linear)
    flux.norm_out.linear.weight[:WIDTH, 0] = 1 / TIME
    flux.norm_out.linear.bias[:WIDTH] = -1
    silence(flux.proj_out)
    flux.proj_out.weight[:, :CHANNELS] = OUT * torch.eye(CHANNELS)
    return flux


def close_gates(network: nn.Module) -> None:
    """Let every block pass its tokens on as they are."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and name.endswith((".norm.linear", ".norm1.linear", ".norm1_context.linear")):
            silence(layer)


def silence(layer: nn.Linear) -> None:
    """Make the layer answer zero, whatever it is asked."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def spread() -> Tensor:
    """[66, 64]: a latent in 64 channels, and minus half its sum in the two others."""
    return torch.cat([torch.eye(CHANNELS), torch.full((2, CHANNELS), -0.5)])


@torch.no_grad()
def tell_time(embedder: Any, factor: float) -> None:
    """Make channel 0 of the embedded time factor / sigma, all others zero.

    1 / sigma is convex: a constant and a sum of bends max(0, knot - sigma), with weights that are all positive. A SiLU is nearly such
    a bend.
    """
    grid = torch.linspace(0, 1.5, 30001, dtype=torch.float64)
    sines = get_timestep_embedding(THOUSAND * grid, TIMES, flip_sin_to_cos=True, downscale_freq_shift=0)[:, -SINES:].sum(dim=1)
    places = BEND / MULTIPLIERS
    inverse = 1 / torch.from_numpy(np.interp(places.numpy(), sines.numpy(), grid.numpy()))
    slopes = inverse.diff() / -places.diff()
    weights, count = torch.cat([slopes[:1], slopes.diff()]), len(slopes)
    silence(embedder.linear_1)
    silence(embedder.linear_2)
    embedder.linear_1.weight[:count, -SINES:] = -MULTIPLIERS[:count, None]
    embedder.linear_1.bias[:count] = BEND
    embedder.linear_2.weight[0, :count] = factor * weights / MULTIPLIERS[:count]
    embedder.linear_2.bias[0] = factor * inverse[0]


@torch.no_grad()
def leading_adapter(dtype: torch.dtype = torch.float32) -> FluxAdapter:
    """The adapter of halving_flux(): one bottleneck behind the last block completes its velocity to (z - z_lq) / sigma."""
    torch.manual_seed(1)
    network = FluxAdapter.for_transformer(FLUX, text_tokens=PROMPT["tokens"], rank=CHANNELS)
    close_gates(network)
    silence(network.x_embedder)
    network.x_embedder.weight[:CHANNELS] = torch.eye(CHANNELS)
    network.control_in.weight[:CHANNELS] = -2 * torch.eye(CHANNELS)
    last = network.se_z[-1]
    silence(last.squeeze)
    last.squeeze.weight[:, :CHANNELS] = torch.eye(CHANNELS)
    last.excite.weight.copy_(spread())
    return network.eval().to(dtype)
