"""InstantIR's U-Net as training calls it: text, image tokens and residuals steer one prediction of the noise, and gradients flow."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..core.models.dcp import DCP, ImageContext
from ..core.models.instant_unet import steered_noise

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from transformers import Dinov2Model


class SteeredUNet(nn.Module):
    """A U-Net to which its DCP is attached for good.

    What it saw stays in sight after a call, because checkpointing computes activations again in the backward pass: of several calls
    the one whose gradients are wanted comes last.
    """

    def __init__(self, unet: UNet2DConditionModel, dcp: DCP) -> None:
        """Raises BadValueError when the DCP was made for another U-Net."""
        super().__init__()
        self.unet, self.dcp = unet, dcp
        self._attachment = ExitStack()
        self._attachment.enter_context(dcp.attached(unet))

    def forward(
        self, latent: Tensor, timestep: Tensor, pooled: Tensor, size_ids: Tensor, text: Tensor, image_tokens: Tensor, *residuals: Tensor
    ) -> Tensor:
        """Noise [B, C, h, w] float32 in latent [B, C, h, w] at timestep [B].

        pooled [B, P]; size_ids [B, 6]; text [B, L, D]; image_tokens [B, N, E]: the encoder's; residuals: the Aggregator's, or none.
        """
        tokens = image_tokens.to(self.dcp.image_proj.latents.dtype)
        self.dcp.sight.now = ImageContext(self.dcp.image_keys(tokens))
        return steered_noise(self.unet, latent, timestep, pooled, size_ids, text, residuals)


class Perceiving(nn.Module):
    """What stage I trains: the DCP, and where it is asked for the image encoder. The U-Net, and an encoder that stays as it is, are no
    submodules."""

    def __init__(self, steered: SteeredUNet, encoder: Dinov2Model, train_encoder: bool) -> None:
        super().__init__()
        self.dcp = steered.dcp
        self._held = (steered, encoder)
        if train_encoder:
            self.encoder = encoder

    def forward(self, latent: Tensor, timestep: Tensor, pooled: Tensor, size_ids: Tensor, text: Tensor, shown: Tensor) -> Tensor:
        """As SteeredUNet.forward(), but with what the encoder is shown, [B, 3, H, W], in place of its tokens."""
        steered, encoder = self._held
        predicted: Tensor = steered(latent, timestep, pooled, size_ids, text, perceived(encoder, shown))
        return predicted


def perceived(encoder: Dinov2Model, shown: Tensor) -> Tensor:
    """Tokens [B, N, E] of what the encoder is shown, [B, 3, H, W]."""
    tokens: Tensor = encoder(pixel_values=shown.to(next(encoder.parameters()).dtype)).last_hidden_state
    return tokens


@torch.no_grad()
def start_as_text(dcp: DCP, unet: UNet2DConditionModel) -> None:
    """The DCP before its training: keys and values of the image projected as the U-Net projects those of the text, and a time that changes
    nothing."""
    names = list(unet.attn_processors)
    for index, layer in dcp.layers.items():
        attention = unet.get_submodule(names[index].removesuffix(".processor"))
        layer.to_k_ip.load_state_dict(attention.to_k.state_dict())
        layer.to_v_ip.load_state_dict(attention.to_v.state_dict())
        for norm in (layer.ln_k_ip, layer.ln_v_ip):
            nn.init.zeros_(norm.linear.weight)
            nn.init.zeros_(norm.linear.bias)
