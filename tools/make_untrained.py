"""Make the embedded stand-ins of methods whose own training is still to come: python tools/make_untrained.py [NAME...]

Tiny networks of a method's true classes whose last layer is zero, so that they change nothing, or made by hand to lead back to where
they were begun from: the embedded VAE takes the picture apart and puts it together again. They prove the run, and restore nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from kintsugi.core.weights.embedded import FOLDER
from kintsugi.core.weights.files import write_weights
from torch import Tensor
from untrained_fluxir import BUILDERS as FLUXIR
from untrained_fluxir import card as fluxir_card
from untrained_instantir import BUILDERS as INSTANTIR
from untrained_instantir import card as instantir_card

BUILDERS: dict[str, Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]] = {**INSTANTIR, **FLUXIR}
CARDS = {**dict.fromkeys(INSTANTIR, instantir_card), **dict.fromkeys(FLUXIR, fluxir_card)}


def make(name: str) -> None:
    """Write untrained-<name>.safetensors and its card into the folder of the embedded weights."""
    torch.manual_seed(0)
    tensors, config = BUILDERS[name]()
    path = FOLDER / f"untrained-{name}.safetensors"
    # FluxIR's are of several kinds already.
    write_weights(path, tensors, config, None if name in FLUXIR else torch.float16)
    count = sum(tensor.numel() for tensor in tensors.values())
    path.with_suffix(".md").write_text(CARDS[name](name, count), encoding="utf-8")


def main(names: list[str]) -> None:
    for name in names or BUILDERS:
        make(name)


if __name__ == "__main__":
    main(sys.argv[1:])
