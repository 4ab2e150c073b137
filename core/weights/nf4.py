"""Networks whose linear layers are kept in 4 bits (nf4, from QLoRA, arXiv 2305.14314) by the package bitsandbytes: quantised when they
are read, or saved so by diffusers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from ..errors import MissingPackageError, WeightsError
from ..runtime import current_host
from .files import build_network, require_shapes

# What Load Prior offers.
Quantization = Literal["none", "nf4"]
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)
# How the weights of a denoiser are stored.
Form = Literal["whole", "gguf", "nf4"]

PACKAGE = "bitsandbytes"
# The first and last layers are half a percent of the weights, and their rounding shows most.
WHOLE = ("x_embedder", "context_embedder", "time_text_embed", "norm_out", "proj_out")
# Behind the name of a weight, one of these says how it is kept: in nf4, or in its elder fp4.
MARKS = (".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")

Network = TypeVar("Network", bound=nn.Module)


def require_package(where: str) -> None:
    """Raise MissingPackageError where bitsandbytes is not installed."""
    if find_spec(PACKAGE) is None:
        raise MissingPackageError(
            "4-bit weights (nf4) need the package bitsandbytes.",
            where=where,
            way_out="pip install bitsandbytes, or choose quantization none and weights that are not quantised.",
        )


def is_quantised(config: Mapping[str, Any]) -> bool:
    """Whether a network's configuration says that its weights were quantised before they were saved."""
    return "quantization_config" in config


def require_bitsandbytes(config: Mapping[str, Any], where: str) -> None:
    """Raise WeightsError for weights saved in another quantised form than 4 bits of bitsandbytes, and MissingPackageError where that is
    missing; nothing for weights that are not quantised."""
    if not is_quantised(config):
        return
    settings = config["quantization_config"]
    if settings.get("quant_method") != PACKAGE or not settings.get("load_in_4bit"):
        raise WeightsError(
            f"was saved quantised as {settings.get('quant_method')!r}, expected {PACKAGE} in 4 bits.",
            where=where,
            way_out="Choose weights in nf4, a GGUF file, or weights that are not quantised.",
        )
    require_package(where)


def build_quantised(build: Callable[[], Network], tensors: dict[str, Tensor], where: str, dtype: torch.dtype) -> Network:
    """build() with exactly these tensors, not quantised yet, its linear layers but the first and last in nf4, computing in dtype.

    They are quantised on the host's device, one after another. Raises MissingPackageError and WeightsError.
    """
    require_package(where)
    network = build_network(build, tensors, where, dtype)
    from bitsandbytes.nn import Params4bit

    linear = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear) and not name.startswith(WHOLE)]
    current_host().make_room(sum(network.get_parameter(f"{name}.weight").numel() for name in linear) / 2)
    for name in linear:
        kept = Params4bit(network.get_parameter(f"{name}.weight").detach(), requires_grad=False, quant_type="nf4").to(current_host().device)
        _replace_layer(network, name, kept, dtype)
    return network


def build_saved(build: Callable[[], Network], tensors: dict[str, Tensor], where: str, dtype: torch.dtype) -> Network:
    """build() with exactly these tensors, some of them weights in 4 bits with what they are read by beside them, on the host's device.

    Layers in 4 bits compute in dtype. Raises WeightsError.
    """
    from accelerate import init_empty_weights
    from bitsandbytes.nn import Params4bit

    weights = [name.removesuffix(mark) for mark in MARKS for name in tensors if name.endswith(mark) and name.removesuffix(mark) in tensors]
    kept, rest = {}, dict(tensors)
    current_host().make_room(sum(tensor.nbytes for tensor in tensors.values()))
    for weight in weights:
        beside = {name: rest.pop(name) for name in tensors if name.startswith(f"{weight}.")}
        kept[weight] = Params4bit.from_prequantized(rest.pop(weight), beside, device=current_host().device)
    with init_empty_weights(include_buffers=False):
        network = build()
    shapes = {name: tensor.shape for name, tensor in rest.items()} | {name: weight.quant_state.shape for name, weight in kept.items()}
    require_shapes({name: tensor.shape for name, tensor in network.state_dict().items()}, shapes, where)
    for name, weight in kept.items():
        _replace_layer(network, name.removesuffix(".weight"), weight, dtype)
    network.load_state_dict({name: tensor.to(dtype) for name, tensor in rest.items()}, strict=False, assign=True)
    return network.eval()


def _replace_layer(network: nn.Module, name: str, weight: Any, dtype: torch.dtype) -> None:
    from bitsandbytes.nn import Linear4bit

    old: Any = network.get_submodule(name)
    layer = Linear4bit(old.in_features, old.out_features, old.bias is not None, compute_dtype=dtype, quant_type="nf4", device="meta")
    layer.weight, layer.bias = weight, old.bias
    network.set_submodule(name, layer)
