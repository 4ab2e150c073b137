"""SDXL is read from a diffusers folder and from a checkpoint, part by part and strictly, and nothing else is taken for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kintsugi.core.errors import WeightsError
from kintsugi.core.methods.coding import decode_latent, encode_picture
from kintsugi.core.models.mini import build_unet, build_vae
from kintsugi.core.models.prior import Prior
from kintsugi.core.models.sdxl_embedding import sdxl_embedding
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights.bases import base_choices, find_base
from kintsugi.core.weights.configs import shipped_config
from kintsugi.core.weights.families import FAMILIES
from kintsugi.core.weights.files import require_exact
from kintsugi.core.weights.original_names import open_clip_names, unet_names, vae_names
from kintsugi.core.weights.priors import load_prior
from published_layouts import random_network, write_folder, write_single_file
from sdxl_layouts import (
    SDXL_CONFIG,
    original_sdxl_names,
    original_unet_names,
    sdxl_parts,
    write_sdxl_checkpoint,
    write_sdxl_folder,
    write_sdxl_tokenizers,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

BASE = "diffusers/stable-diffusion-xl-base-1.0"
TEXT = "a photo, clean!"


def in_layout(layout: str, models: Path) -> Path:
    if layout == "folder":
        return write_sdxl_folder(models / BASE)
    write_sdxl_tokenizers(models / BASE)
    return write_sdxl_checkpoint(models / "checkpoints" / "sd_xl_base_1.0.safetensors")


def denoised(prior: Prior, latent: Tensor, t: int = 500) -> Tensor:
    """One look of the prior at a noised latent."""
    assert prior.denoiser is not None and prior.schedule is not None
    unet: Any = prior.denoiser()
    prompt, rows = prior.encode_prompt(TEXT), torch.tensor([t])
    assert prompt.pooled is not None
    ids = torch.tensor([[16.0, 16, 0, 0, 16, 16]])
    noised = prior.schedule.add_noise(latent, torch.randn(latent.shape, generator=torch.Generator().manual_seed(0)), rows)
    conditions = {"text_embeds": prompt.pooled, "time_ids": ids}
    with torch.inference_mode():
        eps = unet(noised, rows, encoder_hidden_states=prompt.tokens, added_cond_kwargs=conditions).sample
        assert sdxl_embedding(unet, rows, prompt.pooled, ids).shape == (1, 32)
    return prior.schedule.clean(noised, eps, rows, "epsilon")


@pytest.mark.parametrize("layout", ["folder", "file"])
def test_every_part_is_read_and_one_step_is_denoised(host: LocalHost, layout: str) -> None:
    in_layout(layout, host.folders.models)
    prior, parts = load_prior("sdxl"), sdxl_parts()
    assert (prior.family, prior.dtype, prior.offload) == ("sdxl", torch.float32, "none")
    assert prior.denoiser is not None
    for network, part in ((prior.denoiser(), "unet"), (prior.codec.vae, "vae")):
        assert network.state_dict().keys() == parts[part].state_dict().keys()
        assert all(torch.equal(tensor, parts[part].state_dict()[name]) for name, tensor in network.state_dict().items())
    picture = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(1))
    latent = encode_picture(prior, picture, 512)
    assert latent.shape == (1, 4, 8, 8)
    assert denoised(prior, latent).isfinite().all()
    assert decode_latent(prior, latent, 512).shape == picture.shape


def test_a_folder_in_half_precision_is_read(host: LocalHost) -> None:
    folder = in_layout("folder", host.folders.models)
    expected = load_prior("sdxl").encode_prompt(TEXT)
    for name, network in sdxl_parts().items():
        stem = "model" if name.startswith("text") else "diffusion_pytorch_model"
        (folder / name / f"{stem}.safetensors").unlink()
        network.half().save_pretrained(folder / name, variant="fp16")
        assert (folder / name / f"{stem}.fp16.safetensors").is_file()
    prior = load_prior("sdxl")
    found = prior.encode_prompt(TEXT)
    assert found.tokens.dtype == torch.float32 and torch.allclose(found.tokens, expected.tokens, atol=0.02)
    assert denoised(prior, torch.rand(1, 4, 8, 8)).isfinite().all()


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_unet_alone_takes_vae_and_encoders_from_the_base(host: LocalHost, prefix: str) -> None:
    in_layout("folder", host.folders.models)
    unet = random_network("UNet2DConditionModel", SDXL_CONFIG)
    tensors = {f"{prefix}{name}": 2 * tensor for name, tensor in original_unet_names(unet.state_dict(), 3, 2).items()}
    write_single_file(host.folders.models / "diffusion_models" / "tuned.safetensors", tensors, {"unet": SDXL_CONFIG})
    base = find_base("sdxl", "diffusion_models/tuned.safetensors")
    assert torch.equal(base.denoiser().tensors["conv_in.bias"], 2 * unet.conv_in.bias)
    assert base.prompt_encoder() is not None
    with pytest.raises(WeightsError, match=r"tuned\.safetensors: has no VAE of the prior sdxl"):
        base.vae()
    sdxl_parts()["vae"].save_pretrained(host.folders.models / "vae" / "sdxl-vae")
    assert find_base("sdxl", "diffusion_models/tuned.safetensors").vae().config["scaling_factor"] == 0.13025


def test_tokenizers_alone_are_no_prior_to_choose(host: LocalHost) -> None:
    in_layout("file", host.folders.models)
    assert base_choices() == ["checkpoints/sd_xl_base_1.0.safetensors"]


def test_a_checkpoint_without_tokenizers_says_what_to_put_where(host: LocalHost) -> None:
    write_sdxl_checkpoint(host.folders.models / "checkpoints" / "sd_xl_base_1.0.safetensors")
    prior = load_prior("sdxl")
    with pytest.raises(WeightsError, match=r"tokenizers were found nowhere.*vocab\.json.*diffusers/stable-diffusion-xl-base-1\.0"):
        prior.encode_prompt(TEXT)


@pytest.mark.parametrize(
    ("name", "tensor", "fault"),
    [
        ("model.diffusion_model.input_blocks.4.1.extra", torch.zeros(1), r"attentions\.0\.extra is unknown"),
        ("model.diffusion_model.extra", torch.zeros(1), r"tensor extra is unknown"),
        ("model.diffusion_model.middle_block.0.in_layers.2.bias", None, r"mid_block\.resnets\.0\.conv1\.bias is missing"),
        ("model.diffusion_model.label_emb.0.2.bias", None, r"label_emb\.0\.2\.bias is missing"),
        ("model.diffusion_model.out.2.bias", torch.zeros(3), r"conv_out\.bias is \[3\], expected \[4\]"),
    ],
)
def test_a_unet_that_does_not_fit_is_refused_by_name(host: LocalHost, name: str, tensor: Tensor | None, fault: str) -> None:
    write_sdxl_checkpoint(host.folders.models / "checkpoints" / "mine.safetensors", **{name: tensor})
    prior = load_prior("sdxl", "checkpoints/mine.safetensors")
    assert prior.denoiser is not None
    with pytest.raises(WeightsError, match=fault):
        prior.denoiser()


SD1 = {"down_block_types": ["CrossAttnDownBlock2D"] * 3, "up_block_types": ["CrossAttnUpBlock2D"] * 3, "cross_attention_dim": 768}
NO_POOLED = {"addition_embed_type": None, "addition_time_embed_dim": None, "projection_class_embeddings_input_dim": None}
REFINER = {
    "block_out_channels": [8, 16, 16, 16], "attention_head_dim": 4, "transformer_layers_per_block": 1, "cross_attention_dim": 1280,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "projection_class_embeddings_input_dim": 2560, "addition_time_embed_dim": 8,
}  # fmt: skip
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "sd1": ({**SD1, **NO_POOLED}, r"found Stable Diffusion 1 \(4 input channels, 3 levels, cross attention 768, no pooled text\)"),
    "refiner": (REFINER, r"found SDXL's refiner \(4 input channels, 4 levels, cross attention 1280, pooled text 2560\)"),
    "inpainting": ({"in_channels": 9, "cross_attention_dim": 2048}, r"found SDXL for inpainting \(9 input channels"),
}


@pytest.mark.parametrize("layout", ["folder", "file"])
@pytest.mark.parametrize("other", OTHERS)
def test_other_unets_are_refused_with_what_was_found_and_what_is_expected(host: LocalHost, other: str, layout: str) -> None:
    changes, found = OTHERS[other]
    models, config = host.folders.models, {**SDXL_CONFIG, **changes}
    unet = random_network("UNet2DConditionModel", config)
    if layout == "folder":
        write_folder(models / "diffusers" / "mine", {"unet": unet, "vae": sdxl_parts()["vae"]})
    else:
        tensors = original_sdxl_names({**sdxl_parts(), "unet": unet})
        write_single_file(models / "checkpoints" / "mine.safetensors", tensors, {"unet": config})
    name = "diffusers/mine" if layout == "folder" else "checkpoints/mine.safetensors"
    expected = r"expected SDXL \(4 input channels, 3 levels, cross attention 2048, pooled text 2816\)\..*models fetch sdxl"
    with pytest.raises(WeightsError, match=f"(?s)mine.*holds no UNet2DConditionModel of sdxl: {found}.*{expected}"):
        load_prior("sdxl", name)
    assert load_prior("sdxl", "auto").codec.channels == 16


def test_a_controlnet_is_not_taken_for_the_unet_it_copies(host: LocalHost) -> None:
    tensors = {name: tensor for name, tensor in sdxl_parts()["unet"].state_dict().items() if not name.startswith(("up_blocks", "conv_"))}
    tensors["conv_in.weight"] = torch.zeros(8, 4, 3, 3)
    path = write_single_file(host.folders.models / "checkpoints" / "controlnet.safetensors", tensors)
    with pytest.raises(WeightsError, match=r"controlnet\.safetensors: holds no UNet2DConditionModel of sdxl\."):
        load_prior("sdxl", f"checkpoints/{path.name}")


def test_full_size_names_and_shapes_are_those_of_the_release() -> None:
    family = FAMILIES["sdxl"]
    configs = {name: shipped_config(f"sdxl-{name}") for name in ("text-encoder", "text-encoder-2")}
    with torch.device("meta"):
        parts: dict[str, Any] = {
            "unet": build_unet(shipped_config(family.config)),
            "vae": build_vae(shipped_config(family.vae_config)),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**configs["text-encoder"])),
            "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**configs["text-encoder-2"])),
        }
    counts = {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items()}
    assert counts == {"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840}
    original = original_sdxl_names(parts)
    assert len(original) == 2515
    assert family.has_tensors({name.removeprefix("model.diffusion_model."): tensor.shape for name, tensor in original.items()})

    def below(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in original.items() if name.startswith(prefix)}

    second = {name: tensor for name, tensor in below("conditioner.embedders.1.model.").items() if name != "logit_scale"}
    converted = {
        "unet": unet_names(below("model.diffusion_model."), shipped_config(family.config)),
        "vae": vae_names(below("first_stage_model."), shipped_config(family.vae_config)),
        "text_encoder_2": open_clip_names(second),
    }
    for name, tensors in converted.items():
        require_exact({key: tensor.shape for key, tensor in parts[name].state_dict().items()}, tensors, name)


def test_a_vae_that_overflows_stays_in_float32_where_fp16_was_chosen(host: LocalHost, caplog: pytest.LogCaptureFixture) -> None:
    folder = in_layout("folder", host.folders.models)
    with caplog.at_level("INFO", "kintsugi"):
        prior = load_prior("sdxl", dtype="fp16")
    assert prior.codec.vae.dtype == torch.float32 and prior.dtype == torch.float16
    assert "the VAE stays in float32" in caplog.text
    assert prior.denoiser is not None
    assert next(prior.denoiser().parameters()).dtype == torch.float16
    assert load_prior("sdxl", dtype="bf16").codec.vae.dtype == torch.bfloat16
    write_folder(folder, {}, force_upcast=False)
    assert load_prior("sdxl", dtype="fp16").codec.vae.dtype == torch.float16
    write_folder(folder, {}, force_upcast=None)
    assert load_prior("sdxl", dtype="fp16").codec.vae.dtype == torch.float32
