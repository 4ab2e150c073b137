"""The published priors by family: which networks they are made of, and under which names people keep them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BadValueError, WeightsError
from .configs import shipped_config
from .flux_layouts import FluxTraits, flux_in_config, flux_in_tensors, flux_of
from .unets import UNetTraits, unet_in_config, unet_in_tensors, unet_of

Shapes = Mapping[str, Sequence[int]]
Traits = UNetTraits | FluxTraits


@dataclass(frozen=True)
class Family:
    """A prior and how its parts are told from those of other families.

    component: the denoiser's subfolder in a diffusers folder; network: its diffusers class; config, vae_config: the shipped
    configurations of single files. usual, usual_vaes, usual_texts: endings of places that `auto` takes, the best first (in
    small letters, `*` for any text). has_config, has_tensors: whether a denoiser's configuration, or the tensors of a file, are
    of this family. remedy: what to do when nothing is found. unused: tensors that publications hold and no inference needs.
    betas: first and last of the schedule it was trained with, for samplers of many steps. is_flow: whether such samplers follow a
    rectified flow instead. Neither where one step is taken alone. usual_text_files: for each text encoder, in ComfyUI's
    text_encoders. is_quantised: whether files of quantised weights are read too.
    """

    name: str
    component: str
    network: str
    config: str
    vae_config: str
    usual: tuple[str, ...]
    usual_vaes: tuple[str, ...]
    usual_texts: tuple[str, ...]
    has_config: Callable[[Mapping[str, Any]], bool]
    has_tensors: Callable[[Shapes], bool]
    remedy: str
    unused: tuple[str, ...] = ()
    betas: tuple[float, float] | None = None
    is_flow: bool = False
    usual_text_files: tuple[tuple[str, ...], ...] = ()
    is_quantised: bool = False


def _is_sd3(shapes: Shapes) -> bool:
    """The original or diffusers names, without the normalised queries of SD3.5."""
    original = "joint_blocks.0.context_block.attn.qkv.weight" in shapes and "joint_blocks.0.x_block.attn.ln_q.weight" not in shapes
    renamed = "transformer_blocks.0.attn.add_q_proj.weight" in shapes and "transformer_blocks.0.attn.norm_q.weight" not in shapes
    return original or (renamed and "pos_embed.pos_embed" in shapes)


def _is_pixart_512(shapes: Shapes) -> bool:
    """PixArt without the size conditioning of its 1024 pixel models."""
    return (
        "adaln_single.linear.weight" in shapes
        and "caption_projection.linear_1.weight" in shapes
        and "adaln_single.emb.resolution_embedder.linear_1.weight" not in shapes
    )


def _is_pixart_512_config(config: Mapping[str, Any]) -> bool:
    """Of that size, under its present class or the one of many networks that it was published with."""
    is_pixart = config.get("_class_name") in ("PixArtTransformer2DModel", "Transformer2DModel")
    return is_pixart and config.get("caption_channels") is not None and config.get("sample_size") == 64


def _is_sdxl(unet: UNetTraits | None) -> bool:
    return unet is not None and unet.is_sdxl_base


def _is_flux(flux: FluxTraits | None) -> bool:
    return flux is not None and flux.is_flux_1


FAMILIES: dict[str, Family] = {
    "sd3": Family(
        name="sd3",
        component="transformer",
        network="SD3Transformer2DModel",
        config="sd3-transformer",
        vae_config="sd3-vae",
        usual=(
            "*sd3_medium.safetensors", "*sd3_medium_incl_clips.safetensors", "*sd3_medium_incl_clips_t5xxl*.safetensors",
            "*stable-diffusion-3-medium-diffusers", "*stable-diffusion-3-medium",
        ),
        usual_vaes=("*sd3_vae.safetensors", "*sd3-vae.safetensors", "*sd3_vae", "*sd3-vae"),
        usual_texts=("*stable-diffusion-3-medium-diffusers", "*stable-diffusion-3-medium"),
        has_config=lambda config: config.get("_class_name") == "SD3Transformer2DModel" and not config.get("qk_norm"),
        has_tensors=_is_sd3,
        remedy="Put sd3_medium.safetensors into checkpoints (kintsugi models fetch sd3-medium), or the diffusers folder "
        "stable-diffusion-3-medium-diffusers into diffusers.",
    ),
    "sd21-vae16": Family(
        name="sd21-vae16",
        component="unet",
        network="UNet2DConditionModel",
        config="gendr-unet",
        vae_config="vae-kl-f8-d16",
        usual=("*sd21-vae16.safetensors", "*sd21-vae16", "*sd2.1-vae16*"),
        usual_vaes=("kintsugi/gendr/vae-kl-f8-d16", "*vae-kl-f8-d16"),
        usual_texts=("*sd21-vae16", "*stable-diffusion-2-1-base", "*stable-diffusion-2-1", "*stable-diffusion-2-base"),
        has_config=lambda config: config.get("_class_name") == "UNet2DConditionModel" and config.get("in_channels") == 16,
        has_tensors=lambda shapes: "mid_block.resnets.0.conv1.weight" in shapes and _channels(shapes, "conv_in.weight") == 16,
        remedy="The SD2.1 U-Net with 16 channels is not published: train it, or use the embedded prior. Its VAE goes into "
        "kintsugi/gendr/vae-kl-f8-d16 (kintsugi models fetch vae-kl-f8-d16).",
    ),
    "pixart-alpha": Family(
        name="pixart-alpha",
        component="transformer",
        network="PixArtTransformer2DModel",
        config="pixart-transformer",
        vae_config="sd-vae-ft-ema",
        usual=("*pixart-xl-2-512x512",),
        usual_vaes=("*sd-vae-ft-ema", "*sd-vae-ft-ema.safetensors", "*vae-ft-ema-560000-ema-pruned.safetensors"),
        usual_texts=("*pixart-xl-2-512x512", "*pixart-xl-2-1024-ms"),
        has_config=_is_pixart_512_config,
        has_tensors=_is_pixart_512,
        remedy="Put the diffusers folder PixArt-XL-2-512x512 into diffusers (kintsugi models fetch pixart-alpha), or the VAE alone "
        "into vae/sd-vae-ft-ema (kintsugi models fetch sd-vae-ft-ema).",
        # What a dropped caption was replaced by in training.
        unused=("caption_projection.y_embedding",),
    ),
    "sdxl": Family(
        name="sdxl",
        component="unet",
        network="UNet2DConditionModel",
        config="sdxl-unet",
        vae_config="sdxl-vae",
        usual=("*sd_xl_base_1.0.safetensors", "*stable-diffusion-xl-base-1.0", "*sd_xl_base_1.0*.safetensors"),
        usual_vaes=("*sdxl_vae.safetensors", "*sdxl-vae", "*sdxl-vae-fp16-fix", "*sdxl.vae.safetensors"),
        usual_texts=("*stable-diffusion-xl-base-1.0", "*sd_xl_base_1.0*.safetensors", "*stable-diffusion-xl*"),
        has_config=lambda config: _is_sdxl(unet_in_config(config)),
        has_tensors=lambda shapes: _is_sdxl(unet_in_tensors(shapes)),
        remedy="Put sd_xl_base_1.0.safetensors into checkpoints (kintsugi models fetch sdxl), or the diffusers folder "
        "stable-diffusion-xl-base-1.0 into diffusers.",
        betas=(0.00085, 0.012),
    ),
    "flux": Family(
        name="flux",
        component="transformer",
        network="FluxTransformer2DModel",
        config="flux-transformer",
        vae_config="flux-vae",
        usual=(
            "*flux1-dev.safetensors", "*flux.1-dev", "*flux1-dev-fp8*.safetensors", "*flux1-dev*.gguf", "*flux1-schnell.safetensors",
            "*flux.1-schnell",
        ),
        usual_vaes=("*/ae.safetensors", "*flux.1-dev", "*flux.1-schnell", "*flux*vae*", "*flux*ae.safetensors"),
        usual_texts=("*flux.1-dev", "*flux.1-schnell", "*flux.1-*", "*flux1-dev-fp8*.safetensors"),
        usual_text_files=(("*clip_l.safetensors",), ("*t5xxl_fp16.safetensors", "*t5xxl*.safetensors")),
        has_config=lambda config: _is_flux(flux_in_config(config)),
        has_tensors=lambda shapes: _is_flux(flux_in_tensors(shapes)),
        remedy="Put flux1-dev.safetensors into diffusion_models and ae.safetensors into vae (kintsugi models fetch flux-dev), or the "
        "diffusers folder FLUX.1-dev into diffusers.",
        is_flow=True,
        is_quantised=True,
    ),
}  # fmt: skip


def _channels(shapes: Shapes, name: str) -> int | None:
    """Input channels of a convolution, or None where there is none of that name."""
    return shapes[name][1] if name in shapes else None


def family_of(name: str) -> Family:
    """The family of that name; raises BadValueError listing the known ones."""
    if name not in FAMILIES:
        raise BadValueError(f"there is no prior family {name!r}.", way_out=f"Known: {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def traits_in_config(config: Mapping[str, Any]) -> Traits | None:
    """What a denoiser's config.json tells of it; None for a class that is not looked into."""
    return unet_in_config(config) or flux_in_config(config)


def traits_in_tensors(shapes: Shapes) -> Traits | None:
    """What a denoiser's tensors tell of it; None for one that is not looked into."""
    return unet_in_tensors(shapes) or flux_in_tensors(shapes)


def wrong_family(family: Family, found: Traits | None, where: str) -> WeightsError:
    """The refusal of a denoiser that is none of the family."""
    words = f"holds no {family.network} of {family.name}"
    if found is not None:
        words += f": found {found}"
        expected = _EXPECTED.get(family.network)
        words += f", expected {expected(shipped_config(family.config))}" if expected else ""
    return WeightsError(f"{words}.", where=where, way_out=family.remedy)


_EXPECTED: dict[str, Callable[[Mapping[str, Any]], Traits]] = {"UNet2DConditionModel": unet_of, "FluxTransformer2DModel": flux_of}
