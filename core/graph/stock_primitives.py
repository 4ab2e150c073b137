"""ComfyUI's nodes that hold one value, for headless use."""

from __future__ import annotations

import sys
from typing import Any


class _Primitive:
    """Gives its widget's value. KIND and OPTIONS are those of the widget."""

    CATEGORY = "utils/primitive"
    DESCRIPTION = "A value to use in several places."
    FUNCTION = "give"
    KIND = "STRING"
    OPTIONS: dict[str, Any] = {}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"value": (cls.KIND, {"tooltip": "The value given.", **cls.OPTIONS})}}

    def give(self, value: Any) -> tuple[Any]:
        return (value,)


class PrimitiveInt(_Primitive):
    KIND, RETURN_TYPES = "INT", ("INT",)
    OPTIONS = {"default": 0, "min": -sys.maxsize, "max": sys.maxsize, "control_after_generate": True}


class PrimitiveFloat(_Primitive):
    KIND, RETURN_TYPES = "FLOAT", ("FLOAT",)
    OPTIONS = {"default": 0.0, "min": float(-sys.maxsize), "max": float(sys.maxsize)}


class PrimitiveString(_Primitive):
    KIND, RETURN_TYPES = "STRING", ("STRING",)
    OPTIONS = {"default": ""}


class PrimitiveStringMultiline(_Primitive):
    KIND, RETURN_TYPES = "STRING", ("STRING",)
    OPTIONS = {"default": "", "multiline": True}


class PrimitiveBoolean(_Primitive):
    KIND, RETURN_TYPES = "BOOLEAN", ("BOOLEAN",)
    OPTIONS = {"default": False}
