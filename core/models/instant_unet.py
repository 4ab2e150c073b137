"""SDXL's U-Net as InstantIR calls it: text, degraded picture and Aggregator's residuals steer one prediction of the noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..runtime import run_model
from .dcp import DCP, ImageContext
from .sdxl_embedding import sdxl_embedding

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


class InstantUNet(nn.Module):
    """A U-Net while its DCP is attached. weights: how much the image counts, per processor index (w of eq. 3)."""

    def __init__(self, unet: UNet2DConditionModel, dcp: DCP, weights: dict[int, float] | None = None) -> None:
        super().__init__()
        self.unet, self.dcp, self.weights = unet, dcp, weights or {}

    @torch.inference_mode()
    def text_keys(self, text: Tensor) -> list[Tensor]:
        """Keys and values of the prompt [R, L, D] for every layer, flat: what predict() takes, computed once per run."""
        indices = sorted(int(index) for index in self.dcp.ip_adapter)

        def flat(rows: Tensor) -> Tensor:
            keys = self.dcp.text_keys(self.unet, rows)
            return torch.cat([part for index in indices for part in keys[index]], dim=-1)

        widths = [self.dcp.width(index) for index in indices for _ in range(2)]
        return list(run_model(flat, text).split(widths, dim=-1))

    @torch.inference_mode()
    def predict(
        self,
        latent: Tensor,
        timestep: Tensor,
        pooled: Tensor,
        size_ids: Tensor,
        tokens: Tensor,
        text_keys: list[Tensor],
        residuals: list[Tensor],
    ) -> Tensor:
        """Noise [R, C, h, w] in latent [R, C, h, w] at timestep [R], in micro-batches.

        pooled [R, P]; size_ids [R, 6]; tokens [R, Q, D]: the Resampler's; residuals: the Aggregator's, or [] for none.
        """
        return run_model(self, latent, timestep, pooled, size_ids, tokens, *text_keys, *residuals)

    def forward(self, latent: Tensor, timestep: Tensor, pooled: Tensor, size_ids: Tensor, tokens: Tensor, *rest: Tensor) -> Tensor:
        """One call of the U-Net; rest: text keys and values, then the residuals of the skips and of the middle."""
        layers = sorted(int(index) for index in self.dcp.ip_adapter)
        keys, residuals = rest[: 2 * len(layers)], rest[2 * len(layers) :]
        embedding = sdxl_embedding(self.unet, timestep, pooled, size_ids)
        context = ImageContext(tokens, embedding, self.weights, dict(zip(layers, _pairs(keys), strict=True)))
        steered: dict[str, Any] = {}
        if residuals:
            steered = {"down_block_additional_residuals": list(residuals[:-1]), "mid_block_additional_residual": residuals[-1]}
        with self.dcp.seeing(context):
            eps: Tensor = self.unet(
                latent,
                timestep,
                tokens,  # stands for the text, whose keys and values the layers have already
                added_cond_kwargs={"text_embeds": pooled, "time_ids": size_ids},
                **steered,
            ).sample
        return eps


def _pairs(keys: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(keys[::2], keys[1::2], strict=True)
