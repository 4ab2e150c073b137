"""The mini family: the diffusers classes of the full-size methods, built from small configurations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, PixArtTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel


def vae_config(channels: tuple[int, ...], latent_channels: int, layers_per_block: int, norm_groups: int) -> dict[str, Any]:
    """AutoencoderKL without mid-block attention and quant convolutions; 2 ** (len(channels) - 1) pixels per latent pixel."""
    return {
        "in_channels": 3, "out_channels": 3, "latent_channels": latent_channels, "block_out_channels": list(channels),
        "down_block_types": ["DownEncoderBlock2D"] * len(channels), "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "layers_per_block": layers_per_block, "norm_num_groups": norm_groups, "mid_block_add_attention": False,
        "use_quant_conv": False, "use_post_quant_conv": False, "scaling_factor": 1.0, "shift_factor": 0.0,
    }  # fmt: skip


def unet_config(
    channels: tuple[int, ...], latent_channels: int, layers_per_block: int, prompt_width: int, norm_groups: int
) -> dict[str, Any]:
    """UNet2DConditionModel whose prompt enters in the middle block alone, where attention is affordable on a CPU."""
    return {
        "sample_size": 32, "in_channels": latent_channels, "out_channels": latent_channels, "block_out_channels": list(channels),
        "down_block_types": ["DownBlock2D"] * len(channels), "up_block_types": ["UpBlock2D"] * len(channels),
        "mid_block_type": "UNetMidBlock2DCrossAttn", "layers_per_block": layers_per_block, "norm_num_groups": norm_groups,
        "cross_attention_dim": prompt_width, "attention_head_dim": 4, "use_linear_projection": True,
    }  # fmt: skip


def build_vae(config: dict[str, Any]) -> AutoencoderKL:
    """The VAE of a vae_config(), randomly initialised, float32."""
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_config(config)


def build_unet(config: dict[str, Any]) -> UNet2DConditionModel:
    """The U-Net of a diffusers configuration, randomly initialised, float32."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_config(config)


def build_sd3_transformer(config: dict[str, Any]) -> SD3Transformer2DModel:
    """The transformer of a diffusers configuration of Stable Diffusion 3, randomly initialised, float32."""
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel.from_config(config)


def build_pixart(config: dict[str, Any]) -> PixArtTransformer2DModel:
    """The transformer of a diffusers configuration of PixArt-alpha, randomly initialised, float32."""
    from diffusers import PixArtTransformer2DModel

    return PixArtTransformer2DModel.from_config(config)
