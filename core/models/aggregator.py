"""InstantIR's Aggregator: SDXL's encoder over the degraded latent and its preview side by side (InstantIR, section 5, eq. 6).

What it sees of both becomes residuals for the skips and the middle of the U-Net. Parameter names are the published ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ..errors import BadValueError
from .sdxl_embedding import sdxl_embedding

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

# Of the layer that scale and shift are told by, in the published file.
SHARED_WIDTH = 128
Side = Literal["height", "width"]
DIMENSIONS: dict[Side, int] = {"height": 2, "width": 3}


class FeatureTransform(nn.Module):
    """Scale and shift of the preview's half, told by the degraded half (SFT, eq. 6): h_p (1 + gamma) + beta."""

    def __init__(self, channels: int, shared_width: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(channels, shared_width, 3, padding=1), nn.SiLU())
        self.mul = nn.Conv2d(shared_width, channels, 3, padding=1)
        self.add = nn.Conv2d(shared_width, channels, 3, padding=1)

    def forward(self, degraded: Tensor, preview: Tensor) -> Tensor:
        """[B, C, h, w] from both halves' features of that shape."""
        shared = self.mlp_shared(degraded)
        return preview * (1 + self.mul(shared)) + self.add(shared)


class Residual(nn.ModuleList):
    """Feature transform, then a 1x1 convolution that starts at zero."""

    def __init__(self, channels: int, shared_width: int) -> None:
        last = nn.Conv2d(channels, channels, 1, bias=True)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        super().__init__([FeatureTransform(channels, shared_width), last])

    def forward(self, degraded: Tensor, preview: Tensor) -> Tensor:
        """[B, C, h, w] from the features of both halves."""
        result: Tensor = self[1](self[0](degraded, preview))
        return result


class Aggregator(nn.Module):
    """Residuals [skips ..., middle] for a U-Net from a degraded latent and a reference of the same size."""

    def __init__(self, unet: UNet2DConditionModel, side: Side = "height", shared_width: int = SHARED_WIDTH) -> None:
        """Takes over the encoder of `unet`, which must not be used afterwards: pass a copy. side: along which the two meet;
        shared_width: channels of what tells scale and shift."""
        super().__init__()
        self.dimension = DIMENSIONS[side]
        self.multiple = 2 ** (len(unet.config.block_out_channels) - 1)
        self.time_proj, self.time_embedding = unet.time_proj, unet.time_embedding
        self.add_time_proj, self.add_embedding = unet.add_time_proj, unet.add_embedding
        self.conv_in = unet.conv_in
        self.ref_conv_in = nn.Conv2d(unet.conv_in.in_channels, unet.conv_in.out_channels, 3, padding=1)
        # The same values in memory of their own: training moves them apart.
        self.ref_conv_in.load_state_dict({name: tensor.clone() for name, tensor in unet.conv_in.state_dict().items()}, assign=True)
        self.down_blocks, self.mid_block = unet.down_blocks, unet.mid_block
        for module in (*self.down_blocks.modules(), *self.mid_block.modules()):
            if hasattr(module, "attn2"):
                module.attn2 = module.norm2 = None  # it reads no text tokens
        self.controlnet_down_blocks = nn.ModuleList(Residual(channels, shared_width) for channels in skip_channels(unet))
        self.controlnet_mid_block = Residual(unet.config.block_out_channels[-1], shared_width)

    def forward(self, degraded: Tensor, reference: Tensor, timestep: Tensor, pooled: Tensor, size_ids: Tensor) -> list[Tensor]:
        """degraded, reference [B, C, h, w], sides in multiples of `multiple`; timestep [B] or [1]; pooled [B, P]; size_ids [B, 6]."""
        embedding = sdxl_embedding(self, timestep, pooled, size_ids)
        features = torch.cat([self.conv_in(degraded), self.ref_conv_in(reference)], dim=self.dimension)
        skips = [features]
        for block in self.down_blocks:
            features, outputs = block(hidden_states=features, temb=embedding)
            skips += outputs
        features = self.mid_block(features, embedding)
        residuals = [residual(*self._halves(skip)) for residual, skip in zip(self.controlnet_down_blocks, skips, strict=True)]
        return [*residuals, self.controlnet_mid_block(*self._halves(features))]

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in; this layer's weights are never kept in fewer bits."""
        return self.conv_in.weight.dtype

    def require_fit(self, unet: UNet2DConditionModel) -> None:
        """Raise BadValueError when the U-Net has other latents, embeddings or features than those this Aggregator was made for."""
        own = [int(residual[1].out_channels) for residual in (*self.controlnet_down_blocks, self.controlnet_mid_block)]
        expected = [*skip_channels(unet), unet.config.block_out_channels[-1]]
        told, wanted = _told(self, own), _told(unet, expected)
        if told != wanted:
            raise BadValueError(
                f"it is made for {told}, the prior has {wanted}.",
                where="Aggregator",
                way_out="Load the prior that the Aggregator belongs to: SDXL base for InstantIR's release.",
            )

    def _halves(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What comes from the degraded latent, and what from the reference."""
        degraded, reference = features.chunk(2, dim=self.dimension)
        return degraded, reference


def skip_channels(unet: UNet2DConditionModel) -> list[int]:
    """Channels of the skip tensors in their order: the input convolution's, then each level's blocks and its downsampler."""
    widths = unet.config.block_out_channels
    channels = [widths[0]]
    for level, (width, block) in enumerate(zip(widths, unet.down_blocks, strict=True)):
        channels += [width] * (len(block.resnets) + (level < len(widths) - 1))
    return channels


def _told(network: Aggregator | UNet2DConditionModel, features: list[int]) -> str:
    sizes, time = network.add_embedding.linear_1.in_features, network.time_embedding.linear_1.in_features
    widths = ", ".join(map(str, features))
    return f"latents of {network.conv_in.in_channels} channels, embeddings of {sizes} and {time} numbers and features of {widths} channels"
