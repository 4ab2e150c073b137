"""InstantIR's stages at their smallest: a random prior of SDXL's class with the embedded VAE, and recipes that stand on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from kintsugi.core.models.byte_text import ByteTextEncoder
from kintsugi.core.models.mini import build_unet
from kintsugi.core.weights.files import write_weights
from kintsugi.training.data import Batch
from kintsugi.training.recipe import load_recipe
from kintsugi.training.stages import build_stage
from PIL import Image
from torch import nn

# The coarsest level then has more than one place to look at.
SIDE = 64
UNET: dict[str, Any] = {
    "sample_size": 8, "in_channels": 16, "out_channels": 16, "block_out_channels": [8, 8, 8, 16], "layers_per_block": 1,
    "norm_num_groups": 4, "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"], "transformer_layers_per_block": 1,
    "attention_head_dim": 2, "cross_attention_dim": 8, "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 32, "use_linear_projection": True,
}  # fmt: skip
TEXT = {"tokens": 4, "width": 8, "pooled": 8}
ENCODER = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 1, "patch_size": 14, "image_size": 56}
RESAMPLER = {"dim": 8, "depth": 1, "dim_head": 4, "heads": 2, "num_queries": 3, "ff_mult": 2}
OWN: dict[str, dict[str, Any]] = {
    "dcp": {"encoder": ENCODER, "resampler": RESAMPLER},
    "previewer": {"rank": 2},
    "aggregator": {"shared_width": 3},
}


def write_prior(path: Path) -> Path:
    torch.manual_seed(0)
    parts = nn.ModuleDict({"unet": build_unet(UNET), "text": ByteTextEncoder(**TEXT)})
    config = {"kind": "prior", "family": "sdxl", "unet": UNET, "text": TEXT, "vae": "embedded", "betas": (0.00085, 0.012)}
    write_weights(path, dict(parts.state_dict()), config, torch.float32)
    return path


def draw_pictures(folder: Path) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(2):
        coarse = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((SIDE + 8, SIDE)).save(folder / f"{index}.png")
    return folder


def overrides(part: str, folder: Path, **settings: Any) -> dict[str, str]:
    """For the mini recipe of that part, two steps of two crops each; `folder` has prior and pictures."""
    own = {"prior": str(folder / "prior.safetensors"), "sizes": "crop", "shown_steps": 2, "name": f"mini-instantir-{part}"}
    phase = {"distillation" if part == "previewer" else "noise": 1.0}
    values = {
        "steps": 2, "batch": 2, "precision": "no", "checkpoint_every": 2, "validate_every": 2,
        "phases": [{"until": 2, "weights": phase}], "settings": {**own, **OWN[part], **settings},
        "data": {"source": "folder", "folder": str(folder / "pictures"), "crop": SIDE, "degradation": "mild"},
    }  # fmt: skip
    return {name: yaml.safe_dump(value) for name, value in values.items()}


def stage_of(part: str, folder: Path, **settings: Any) -> Any:
    torch.manual_seed(1)
    return build_stage(load_recipe(f"mini-instantir-{part}", overrides(part, folder, **settings)))


def drawn_batch(captions: tuple[str, ...] = ("a fox", "")) -> Batch:
    generator = torch.Generator().manual_seed(3)
    high, low = torch.rand(2, 2, 3, SIDE, SIDE, generator=generator)
    return Batch(("one", "other"), high, low, captions, torch.tensor([[40.0, 48, 2, 4, SIDE, SIDE]]).expand(2, -1))
