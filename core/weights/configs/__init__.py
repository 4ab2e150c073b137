"""Configurations of the published networks, so that a file of bare tensors can be read without a network connection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def shipped_config(name: str) -> dict[str, Any]:
    """The configuration that diffusers (or our own class) builds the published network from, such as `sd3-transformer`."""
    content: dict[str, Any] = json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))
    return content
