"""SDXL's U-Net as InstantIR calls it: text, degraded picture and Aggregator's residuals steer one prediction of the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..runtime import run_model
from .dcp import DCP, ImageContext, KeysValues

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


class InstantUNet(nn.Module):
    """A U-Net while its DCP is attached.

    weights: how much the image counts, per processor index (w of eq. 3). resident: the U-Net's layers can be called one by one,
    since their weights stay on the device; where they do not, the text's keys are made anew in every call.
    """

    def __init__(self, unet: UNet2DConditionModel, dcp: DCP, weights: Mapping[int, float] | None = None, resident: bool = True) -> None:
        super().__init__()
        self.unet, self.dcp, self.weights, self.resident = unet, dcp, weights or {}, resident

    @torch.inference_mode()
    def text_keys(self, text: Tensor) -> Tensor:
        """Keys and values of the prompt [R, L, D] for every layer, [R, F] as predict() takes them: computed once per run with
        the Previewer's adapter off, and once with it on. F is 0 where they are not."""
        if not self.resident:
            return text.new_empty(text.shape[0], 0)
        return run_model(lambda rows: self._packed(self.dcp.text_keys(self.unet, rows)), text)

    @torch.inference_mode()
    def image_keys(self, tokens: Tensor) -> Tensor:
        """What the image's keys and values are made of in every layer, [R, F] as predict() takes them, for the encoder's tokens
        [R, N, D]: once per run as well, off and on."""
        return run_model(lambda rows: self._packed(self.dcp.image_keys(rows)), tokens)

    @torch.inference_mode()
    def predict(
        self,
        latent: Tensor,
        timestep: Tensor,
        pooled: Tensor,
        size_ids: Tensor,
        text: Tensor,
        text_keys: Tensor,
        image_keys: Tensor,
        residuals: list[Tensor],
    ) -> Tensor:
        """Noise [R, C, h, w] float32 in latent [R, C, h, w] at timestep [R], in micro-batches.

        pooled [R, P]; size_ids [R, 6]; text [R, L, D]; residuals: the Aggregator's, or [] for none.
        """
        return run_model(self, latent, timestep, pooled, size_ids, text, text_keys, image_keys, *residuals)

    def forward(
        self,
        latent: Tensor,
        timestep: Tensor,
        pooled: Tensor,
        size_ids: Tensor,
        text: Tensor,
        text_keys: Tensor,
        image_keys: Tensor,
        *residuals: Tensor,
    ) -> Tensor:
        """One call of the U-Net; residuals: those of the skips, then of the middle."""
        with self.dcp.seeing(ImageContext(self._unpacked(image_keys), self._unpacked(text_keys), self.weights)):
            return steered_noise(self.unet, latent, timestep, pooled, size_ids, text, residuals)

    def _packed(self, pairs: Mapping[int, KeysValues]) -> Tensor:
        """[R, F] of every layer's keys and values [R, n, C]: one tensor travels in micro-batches faster than hundreds."""
        return torch.cat([part.flatten(1) for index in self.dcp.widths for part in pairs[index]], dim=1)

    def _unpacked(self, packed: Tensor) -> dict[int, KeysValues]:
        widths = self.dcp.widths
        tokens = packed.shape[1] // (2 * sum(widths.values()))
        if tokens == 0:
            return {}
        parts = packed.split([2 * tokens * width for width in widths.values()], dim=1)
        both = (part.unflatten(1, (2, tokens, width)) for part, width in zip(parts, widths.values(), strict=True))
        return {index: (pair[:, 0], pair[:, 1]) for index, pair in zip(widths, both, strict=True)}


def steered_noise(
    unet: UNet2DConditionModel,
    latent: Tensor,
    timestep: Tensor,
    pooled: Tensor,
    size_ids: Tensor,
    text: Tensor,
    residuals: Sequence[Tensor],
) -> Tensor:
    """Noise [R, C, h, w] float32 by a U-Net whose DCP sees what it is to see; arguments as of InstantUNet.forward()."""
    dtype = unet.dtype
    steered: dict[str, Any] = {}
    if residuals:
        *skips, middle = (residual.to(dtype) for residual in residuals)
        steered = {"down_block_additional_residuals": skips, "mid_block_additional_residual": middle}
    added = {"text_embeds": pooled.to(dtype), "time_ids": size_ids}
    eps: Tensor = unet(latent.to(dtype), timestep, text.to(dtype), added_cond_kwargs=added, **steered).sample
    return eps.float()
