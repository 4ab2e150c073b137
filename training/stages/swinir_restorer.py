"""The coarse restorer by regression on degraded and clean pairs, as DiffBIR's first stage trains it (arXiv 2308.15070)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ...core.models.swinir import COARSE_SLOPE, RGB_MEAN, UPSAMPLED_SLOPE, SwinIR, SwinIRConfig
from ...core.weights.files import write_weights
from ...core.weights.swinir import KIND
from ..data import Batch
from ..latents import Autoencoder
from ..losses import pixel_loss, square_loss
from ..prompts import PromptCache
from ..recipe import Strict
from .base import Turns

COLORS = len(RGB_MEAN)
POINT, TENT = (0.0, 1.0, 0.0), (0.25, 0.5, 0.25)


class SwinirRestorerSettings(Strict):
    """The sizes of SwinIRConfig under shorter names. scale: pixels per feature pixel along each side. The width holds every colour
    of a feature pixel's block, and the features hold each colour twice: see start_smooth(). border: pixels of reflection that
    restoring adds around a picture."""

    scale: int = 2
    width: int = 48
    depths: tuple[int, ...] = (2, 2, 2)
    heads: int = 3
    window: int = 8
    mlp_ratio: float = 2.0
    features: int = Field(24, ge=2 * COLORS)
    grid: int = 32
    border: int = 8

    @model_validator(mode="after")
    def _require_room(self) -> SwinirRestorerSettings:
        if self.width < COLORS * self.scale**2:
            raise ValueError(f"width is {self.width}, expected at least {COLORS * self.scale**2} for a scale of {self.scale}")
        return self

    def config(self) -> SwinIRConfig:
        """The published keys with these numbers."""
        return SwinIRConfig(
            img_size=self.grid, patch_size=1, in_chans=COLORS, embed_dim=self.width, depths=self.depths,
            num_heads=(self.heads,) * len(self.depths), window_size=self.window, mlp_ratio=self.mlp_ratio, sf=self.scale,
            img_range=1.0, upsampler="nearest+conv", resi_connection="1conv", unshuffle=True, unshuffle_scale=self.scale,
            num_feat=self.features,
        )  # fmt: skip


class SwinirRestorerStage:
    """The whole network by one loss: DiffBIR's `square`, or `pixel`."""

    Settings: ClassVar[type[Strict]] = SwinirRestorerSettings
    turns: ClassVar[Turns] = {"restorer": ("square", "pixel")}

    def __init__(self, settings: SwinirRestorerSettings) -> None:
        self.settings = settings
        self.network = SwinIR(settings.config())
        start_smooth(self.network)
        self.networks: dict[str, nn.Module] = {"restorer": self.network}
        self.frozen: dict[str, nn.Module] = {}
        self.vae: Autoencoder | None = None
        self.captioned: PromptCache | None = None

    def losses(self, turn: str, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        restored = _restored(model, batch)
        losses = {"square": square_loss(restored, batch.high_quality), "pixel": pixel_loss(restored, batch.high_quality)}
        return {name: loss for name, loss in losses.items() if name in wanted}

    def output(self, batch: Batch) -> dict[str, Tensor]:
        return {"low_quality": batch.degraded, "restored": _restored(self.network, batch), "high_quality": batch.high_quality}

    def export(self, folder: Path, card: str) -> list[Path]:
        weights, text = folder / "mini-swinir.safetensors", folder / "mini-swinir.md"
        config = {"kind": KIND, "swinir": asdict(self.network.config), "border": self.settings.border}
        write_weights(weights, dict(self.network.state_dict()), config)
        text.write_text(card)
        return [weights, text]


def _restored(model: nn.Module, batch: Batch) -> Tensor:
    restored: Tensor = model(batch.degraded.to(memory_format=torch.channels_last))
    return restored.float()


@torch.no_grad()
def start_smooth(network: SwinIR) -> None:
    """Start as the mean colour of every feature pixel's block, interpolated: from a random start a small budget is spent on
    finding out that colours matter.

    The body starts by adding nothing. A signal a travels as the pair +a, -a, since the difference of the two after a leaky
    ReLU of slope s is (1 + s) a; after every enlargement a tent of (1 2 1) / 4 makes nearest linear interpolation.
    """
    convs: dict[str, Any] = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    pixels = network.config.unshuffle_scale**2
    colors = COLORS * pixels
    _pass(convs["conv_first.1"], torch.eye(colors), POINT)
    for name in ("conv_after_body", "conv_last"):
        nn.init.zeros_(convs[name].weight)
        nn.init.zeros_(convs[name].bias)
    means = torch.eye(COLORS).repeat_interleave(pixels, dim=1) / pixels
    pairs = torch.cat([torch.eye(COLORS), -torch.eye(COLORS)])
    _pass(convs["conv_before_upsample.0"], pairs @ means, POINT)
    slope = COARSE_SLOPE
    for name in network.upsampling:
        _pass(convs[name], pairs @ pairs.T / (1 + slope), TENT)
        slope = UPSAMPLED_SLOPE
    _pass(convs["conv_hr"], pairs @ pairs.T / (1 + slope), POINT)
    _pass(convs["conv_last"], pairs.T / (1 + slope), POINT)


def _pass(conv: Any, matrix: Tensor, profile: tuple[float, ...]) -> None:
    """The first rows of a 3x3 convolution: `matrix` across its first channels, profile x profile over the pixels."""
    line, (outputs, inputs) = torch.tensor(profile), matrix.shape
    conv.weight[:outputs] = 0
    conv.bias[:outputs] = 0
    conv.weight[:outputs, :inputs] = matrix[:, :, None, None] * torch.outer(line, line)
