"""What a U-Net's configuration or tensors tell of the model it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# By the width of the prompt's tokens and whether pooled text enters beside them.
_MODELS = {(768, False): "Stable Diffusion 1", (1024, False): "Stable Diffusion 2", (2048, True): "SDXL", (1280, True): "SDXL's refiner"}
# Latent, masked latent and mask side by side.
_INPAINTING_CHANNELS = 9


@dataclass(frozen=True)
class UNetTraits:
    """channels: of its input; levels: of resolution; text: width of the prompt's tokens; pooled: width of what enters with the
    time, pooled text and size ids, or 0 where nothing does."""

    channels: int
    levels: int
    text: int
    pooled: int

    @property
    def is_sdxl_base(self) -> bool:
        """Told by what even the smallest U-Net of that form has: the refiner has four levels, others take no pooled text."""
        return self.channels == 4 and self.levels == 3 and self.pooled > 0

    def __str__(self) -> str:
        model = _MODELS.get((self.text, self.pooled > 0), "an unknown U-Net")
        purpose = " for inpainting" if self.channels == _INPAINTING_CHANNELS else ""
        pooled = f"pooled text {self.pooled}" if self.pooled else "no pooled text"
        return f"{model}{purpose} ({self.channels} input channels, {self.levels} levels, cross attention {self.text}, {pooled})"


def unet_in_config(config: Mapping[str, Any]) -> UNetTraits | None:
    """Of a folder's config.json; None for one of another class."""
    return unet_of(config) if config.get("_class_name") == "UNet2DConditionModel" else None


def unet_of(config: Mapping[str, Any]) -> UNetTraits:
    """Of what a UNet2DConditionModel is built from."""
    has_pooled = config.get("addition_embed_type") == "text_time"
    return UNetTraits(
        channels=config.get("in_channels", 4),
        levels=len(config.get("block_out_channels", ())),
        text=config.get("cross_attention_dim", 0),
        pooled=config.get("projection_class_embeddings_input_dim", 0) if has_pooled else 0,
    )


def unet_in_tensors(shapes: Mapping[str, Sequence[int]]) -> UNetTraits | None:
    """Of a whole U-Net's tensors, original or diffusers names; None for another network, such as half of one."""
    first = shapes.get("input_blocks.0.0.weight") or shapes.get("conv_in.weight")
    if first is None or not ("out.2.weight" in shapes or "conv_out.weight" in shapes):
        return None
    text = next((shape[1] for name, shape in shapes.items() if name.endswith(".attn2.to_k.weight")), 0)
    pooled = shapes.get("label_emb.0.0.weight") or shapes.get("add_embedding.linear_1.weight")
    downsamplers = [name for name in shapes if name.endswith((".0.op.weight", ".downsamplers.0.conv.weight"))]
    return UNetTraits(first[1], len(downsamplers) + 1, text, pooled[1] if pooled else 0)
