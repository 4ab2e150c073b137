"""FLUX.1's transformer as it was released, in diffusers' names.

Our own, because diffusers' converter has the width of the full-size model built in and copies all of its 12 billion weights: what is
kept in one tensor there and in several here becomes views of it. Tensors may be quantised, as long as their rows are whole.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .original_names import Tensors

_ENDS = {
    "time_in": "time_text_embed.timestep_embedder", "vector_in": "time_text_embed.text_embedder",
    "guidance_in": "time_text_embed.guidance_embedder", "img_in": "x_embedder", "txt_in": "context_embedder",
    "final_layer.linear": "proj_out", "final_layer.adaLN_modulation.1": "norm_out.linear", "in_layer": "linear_1",
    "out_layer": "linear_2",
}  # fmt: skip
_DOUBLE = {
    "img_mod.lin": "norm1.linear", "txt_mod.lin": "norm1_context.linear", "img_mlp.0": "ff.net.0.proj", "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj", "txt_mlp.2": "ff_context.net.2", "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out", "img_attn.norm.query_norm": "attn.norm_q", "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q", "txt_attn.norm.key_norm": "attn.norm_added_k",
}  # fmt: skip
_SINGLE = {
    "modulation.lin": "norm.linear", "linear2": "proj_out", "norm.query_norm": "attn.norm_q", "norm.key_norm": "attn.norm_k",
}  # fmt: skip
_STACKED = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
}
_BLOCKS = {"double_blocks": ("transformer_blocks", _DOUBLE), "single_blocks": ("single_transformer_blocks", _SINGLE)}
# Shift before scale there, scale before shift here.
_SWAPPED = "final_layer.adaLN_modulation.1"


def has_original_names(tensors: Tensors) -> bool:
    """Whether these are the names of the release."""
    return any(name.startswith(tuple(f"{kind}." for kind in _BLOCKS)) for name in tensors)


def flux_names(tensors: Tensors) -> Tensors:
    """The transformer in diffusers' names; what is unknown keeps its own, so that the strict reader refuses it."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        if module == _SWAPPED:
            tensor = torch.cat(list(reversed(tensor.chunk(2))))
        parts = _named_parts(module, tensor)
        kind = "weight" if kind == "scale" else kind
        found.update({f"{part}.{kind}" if part else name: rows for part, rows in parts.items()})
    return found


def _named_parts(module: str, tensor: Tensor) -> Tensors:
    """The tensor by the module it belongs to here, or its rows where that is several."""
    kind, *rest = module.split(".", 2)
    if kind not in _BLOCKS or len(rest) < 2:
        return {_replaced(module): tensor}
    block, names = _BLOCKS[kind]
    index, inner = rest
    stacked = _STACKED.get(inner)
    if stacked is None:
        return {f"{block}.{index}.{names.get(inner, inner)}": tensor}
    return {f"{block}.{index}.{name}": rows for name, rows in zip(stacked, _split(tensor, len(stacked)), strict=True)}


def _split(tensor: Tensor, count: int) -> list[Tensor]:
    """Queries, keys and values, and behind them a perceptron four times as wide as each where that is a fourth."""
    width = len(tensor) // (3 if count == 3 else 7)
    return list(tensor.split([width] * 3 + [4 * width] * (count - 3)))


def _replaced(module: str) -> str:
    for old, new in _ENDS.items():
        module = module.replace(old, new)
    return module
