"""Make the embedded stand-ins of methods whose own training is still to come: python tools/make_untrained.py [NAME...]

Tiny networks of a method's true classes whose last layer is zero, so that they change nothing, or made by hand to lead back to where
they were begun from: the embedded VAE takes the picture apart and puts it together again. They prove the run, and restore nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from kintsugi.core.methods.tsd_sr import OneStepConstants, TsdSr
from kintsugi.core.models.mini import build_sd3_transformer
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.weights.embedded import FOLDER
from kintsugi.core.weights.files import write_weights
from kintsugi.core.weights.tsd_sr import POSITIONS
from torch import Tensor
from untrained_fluxir import BUILDERS as FLUXIR
from untrained_fluxir import card as fluxir_card
from untrained_instantir import BUILDERS as INSTANTIR
from untrained_instantir import card as instantir_card
from untrained_instantir import silence

# 2 x 2 patches of the embedded VAE's latents, four pixels each: the largest tile, its overlap and its border have a position.
POSITIONS_PER_SIDE = 592
BORDER = 16

CARD = """# untrained-{method}

Untrained. A network of {method}'s true class at the smallest size, random but for its last layer, which is zero: the picture comes
back as the embedded VAE makes it, neither restored nor sharpened. It only proves that {method} runs from one end to the other,
until weights from this method's training take its place. For restoring pictures put the published weights into
kintsugi/{method} (`kintsugi models list` says from where), or choose gendr.

Made by `python tools/make_untrained.py {method}`. {count} parameters, fp16. Licence: Apache-2.0.
"""


def tsd_sr() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and configuration of a file that core/weights/tsd_sr.py reads as a whole one."""
    config = {
        "sample_size": 64, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 2, "attention_head_dim": 4,
        "num_attention_heads": 2, "joint_attention_dim": 8, "caption_projection_dim": 8, "pooled_projection_dim": 8,
        "pos_embed_max_size": POSITIONS_PER_SIDE,
    }  # fmt: skip
    transformer = build_sd3_transformer(config)
    silence(transformer.proj_out)
    method = TsdSr(transformer, PromptEmbedding(torch.randn(1, 2, 8), torch.randn(1, 8)), OneStepConstants())
    tensors = {name: tensor for name, tensor in method.state_dict().items() if name != f"transformer.{POSITIONS}"}
    return tensors, {"kind": "tsd-sr", "transformer": config, "one_step": {}, "border": BORDER, "vae": "embedded"}


BUILDERS: dict[str, Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]] = {
    "tsd-sr": tsd_sr,
    **INSTANTIR,
    **FLUXIR,
}
CARDS = {**dict.fromkeys(INSTANTIR, instantir_card), **dict.fromkeys(FLUXIR, fluxir_card)}


def make(name: str) -> None:
    """Write untrained-<name>.safetensors and its card into the folder of the embedded weights."""
    torch.manual_seed(0)
    tensors, config = BUILDERS[name]()
    path = FOLDER / f"untrained-{name}.safetensors"
    # FluxIR's are of several kinds already.
    write_weights(path, tensors, config, None if name in FLUXIR else torch.float16)
    count = sum(tensor.numel() for tensor in tensors.values())
    card = CARDS[name](name, count) if name in CARDS else CARD.format(method=name, count=f"{count:,}")
    path.with_suffix(".md").write_text(card, encoding="utf-8")


def main(names: list[str]) -> None:
    for name in names or BUILDERS:
        make(name)


if __name__ == "__main__":
    main(sys.argv[1:])
