"""Tiny FLUX.1 as it is published: a diffusers folder, single files in the names of the release, and ComfyUI's files and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from published_layouts import original_vae_names, random_network, vae_config, write_folder, write_single_file
from tiny_text_encoders import clip_config, write_clip_tokenizer, write_t5
from torch import Tensor
from transformers import CLIPTextModel, T5EncoderModel

FLUX_CONFIG: dict[str, Any] = {
    "patch_size": 1, "in_channels": 64, "num_layers": 2, "num_single_layers": 3, "attention_head_dim": 8, "num_attention_heads": 2,
    "joint_attention_dim": 40, "pooled_projection_dim": 8, "guidance_embeds": True, "axes_dims_rope": [2, 2, 4],
}  # fmt: skip
FLUX_VAE = vae_config(16, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False, force_upcast=True)
CLIP = clip_config(8, eos_token_id=2)
CLIP_PREFIX, T5_PREFIX = "text_encoders.clip_l.transformer.", "text_encoders.t5xxl.transformer."


def flux(**changes: Any) -> Any:
    """The transformer, every tensor drawn, the same at every call. changes: entries of its configuration."""
    return random_network("FluxTransformer2DModel", {**FLUX_CONFIG, **changes})


def write_flux_folder(folder: Path, **changes: Any) -> Path:
    write_folder(folder, {"transformer": flux(**changes), "vae": random_network("AutoencoderKL", FLUX_VAE)})
    write_flux_text(folder)
    return folder


def write_flux_text(folder: Path) -> None:
    """Both text encoders and both tokenizers."""
    write_clip_tokenizer(folder / "tokenizer")
    torch.manual_seed(4)
    CLIPTextModel(CLIP).save_pretrained(folder / "text_encoder")
    write_t5(folder, "_2")


def text_tensors(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of write_flux_text() as ComfyUI's files have them, with some that no prompt needs."""
    clip_l = CLIPTextModel.from_pretrained(folder / "text_encoder")
    t5 = T5EncoderModel.from_pretrained(folder / "text_encoder_2")
    first = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in clip_l.state_dict().items()}
    second = {name: tensor for name, tensor in t5.state_dict().items() if name != "encoder.embed_tokens.weight"}
    return {**first, "text_projection.weight": torch.zeros(8, 8), "logit_scale": torch.zeros(())}, second


def text_configs(folder: Path) -> dict[str, Any]:
    t5 = T5EncoderModel.from_pretrained(folder / "text_encoder_2").config
    return {"text_encoder": CLIP.to_dict(), "text_encoder_2": t5.to_dict()}


def write_flux_files(models: Path, **changes: Any) -> None:
    """Transformer and VAE apart, as they were released. changes: entries of the transformer's configuration."""
    tensors = original_flux_names(flux(**changes).state_dict())
    write_single_file(models / "diffusion_models" / "flux1-dev.safetensors", tensors, {"transformer": {**FLUX_CONFIG, **changes}})
    write_flux_vae(models / "vae" / "ae.safetensors")


def write_flux_vae(path: Path) -> None:
    write_single_file(path, original_vae_names(random_network("AutoencoderKL", FLUX_VAE).state_dict(), 2), {"vae": FLUX_VAE})


def write_flux_checkpoint(path: Path, folder: Path, **changes: Tensor | None) -> Path:
    """Everything in one file, as ComfyUI keeps it. folder: where write_flux_text() was; changes: tensors in place of others or beside
    them; None leaves one out."""
    clip_l, t5 = text_tensors(folder)
    parts = {
        "model.diffusion_model.": original_flux_names(flux().state_dict()),
        "vae.": original_vae_names(random_network("AutoencoderKL", FLUX_VAE).state_dict(), 2),
        CLIP_PREFIX: clip_l,
        T5_PREFIX: t5,
    }
    tensors = {f"{prefix}{name}": tensor for prefix, found in parts.items() for name, tensor in found.items()} | changes
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    return write_single_file(path, kept, {"transformer": FLUX_CONFIG, "vae": FLUX_VAE, **text_configs(folder)})


def original_flux_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A diffusers Flux transformer in the names of the release: what is computed side by side in one, shift before scale at the end."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        block, inner = _block_of(module)
        names, stacked = _BLOCKS.get(block.partition(".")[0], (_ENDS, {}))
        if module == "norm_out.linear":
            tensor = torch.cat(list(reversed(tensor.chunk(2))))
        whole = next((new for new, parts in stacked.items() if inner in parts), None)
        if whole is None:
            new = names.get(inner, inner)
            found[f"{_original(block)}{new}.{'scale' if new.endswith('_norm') else kind}"] = tensor
        elif inner == stacked[whole][0]:
            found[f"{_original(block)}{whole}.{kind}"] = torch.cat([tensors[f"{block}{part}.{kind}"] for part in stacked[whole]])
    return found


def _block_of(module: str) -> tuple[str, str]:
    """`transformer_blocks.0.attn.to_q` -> (`transformer_blocks.0.`, `attn.to_q`)."""
    kind, *rest = module.split(".", 2)
    return (f"{kind}.{rest[0]}.", rest[1]) if kind in _BLOCKS else ("", module)


def _original(block: str) -> str:
    return block.replace("single_transformer_blocks", "single_blocks").replace("transformer_blocks", "double_blocks")


_ENDS = {
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer", "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer", "x_embedder": "img_in", "context_embedder": "txt_in",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer", "proj_out": "final_layer.linear",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer", "norm_out.linear": "final_layer.adaLN_modulation.1",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
}  # fmt: skip
_DOUBLE = {
    "norm1.linear": "img_mod.lin", "norm1_context.linear": "txt_mod.lin", "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm", "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm", "attn.to_out.0": "img_attn.proj", "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0", "ff.net.2": "img_mlp.2", "ff_context.net.0.proj": "txt_mlp.0", "ff_context.net.2": "txt_mlp.2",
}  # fmt: skip
_SINGLE = {
    "norm.linear": "modulation.lin", "attn.norm_q": "norm.query_norm", "attn.norm_k": "norm.key_norm", "proj_out": "linear2",
}  # fmt: skip
_QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
_ADDED = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
_BLOCKS: dict[str, tuple[dict[str, str], dict[str, tuple[str, ...]]]] = {
    "transformer_blocks": (_DOUBLE, {"img_attn.qkv": _QKV, "txt_attn.qkv": _ADDED}),
    "single_transformer_blocks": (_SINGLE, {"linear1": (*_QKV, "proj_mlp")}),
}
