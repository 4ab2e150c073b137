"""Words for INPUT_TYPES: each helper makes one input entry, and none can be made without a tooltip."""

from __future__ import annotations

from typing import Any

InputSpec = tuple[Any, dict[str, Any]]
InputTypes = dict[str, dict[str, InputSpec]]

AGGREGATOR = "KINTSUGI_AGGREGATOR"
CAPTIONER = "KINTSUGI_CAPTIONER"
DCP = "KINTSUGI_DCP"
FLUXIR = "KINTSUGI_FLUXIR"
GENERATOR = "KINTSUGI_GENERATOR"
LQ_CONTEXT = "KINTSUGI_LQ_CONTEXT"
PREVIEWER = "KINTSUGI_PREVIEWER"
PRIOR = "KINTSUGI_PRIOR"
PHOTO = "KINTSUGI_PHOTO"
REGION = "KINTSUGI_REGION"

LARGEST_SEED = 2**63 - 1


def socket(kind: str, tooltip: str, **options: Any) -> InputSpec:
    """A connection of that type, without a widget."""
    return kind, {"tooltip": tooltip, **options}


def integer(default: int, low: int, high: int, tooltip: str, step: int = 1, **options: Any) -> InputSpec:
    return "INT", {"default": default, "min": low, "max": high, "step": step, "tooltip": tooltip, **options}


def number(default: float, low: float, high: float, tooltip: str, step: float = 0.01, **options: Any) -> InputSpec:
    return "FLOAT", {"default": default, "min": low, "max": high, "step": step, "tooltip": tooltip, **options}


def choice(options: list[str], default: str, tooltip: str, **more: Any) -> InputSpec:
    return options, {"default": default, "tooltip": tooltip, **more}


def switch(default: bool, tooltip: str, **options: Any) -> InputSpec:
    return "BOOLEAN", {"default": default, "tooltip": tooltip, **options}


def text(default: str, tooltip: str, multiline: bool = False, **options: Any) -> InputSpec:
    return "STRING", {"default": default, "multiline": multiline, "tooltip": tooltip, **options}


def seed(tooltip: str = "Same seed, same picture. Picture i of a batch uses seed + i.", **options: Any) -> InputSpec:
    return integer(0, 0, LARGEST_SEED, tooltip, control_after_generate=True, **options)
