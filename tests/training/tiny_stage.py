"""A stage of two turns, small enough to be trained by a test in a second, and a script that trains it in processes of its own.

torchrun --nproc_per_node 2 tests/training/tiny_stage.py FOLDER '{"sharding": "fsdp", ...}' [--resume]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kintsugi.training.adapters import Adapted, suffix_targets
from kintsugi.training.data import Batch
from kintsugi.training.latents import Autoencoder
from kintsugi.training.learners import Learner
from kintsugi.training.prompts import PromptCache
from kintsugi.training.recipe import Recipe, Strict
from kintsugi.training.shares import whole
from kintsugi.training.trainer import Trainer
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

OPTIMIZER = {"learning_rate": 1e-3, "clip": 0.5, "weight_decay": 0.01}
ALL_WEIGHTS = {"pixel": 1.0, "opinion": 0.3, "auxiliary": 1.0}
RECIPE: dict[str, Any] = {
    "stage": "swinir-restorer", "steps": 5, "batch": 2, "precision": "no", "ema": 0.9, "checkpoint_every": 3, "validate_every": 100,
    "optimizers": {"student": OPTIMIZER, "auxiliary": {**OPTIMIZER, "learning_rate": 2e-3}},
    "phases": [{"until": 5, "weights": ALL_WEIGHTS}],
}  # fmt: skip


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.mix = nn.GroupNorm(2, width), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.mix(nn.functional.silu(self.norm(features)))


class Network(nn.Module):
    """One parameter, `unused`, has no part in any loss."""

    _no_split_modules = ["Block"]

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.blocks = nn.ModuleList([Block(width), Block(width)])
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, pictures: Tensor) -> Tensor:
        features = self.first(pictures)
        for block in self.blocks:
            features = block(features)
        return self.last(features)


class TinyStage:
    """The student is a frozen network with an adapter, or a whole one; the auxiliary learns from what it makes, and judges it."""

    Settings = Strict
    turns = {"student": ("pixel", "opinion", "contrast"), "auxiliary": ("auxiliary",)}
    vae: Autoencoder | None = None
    captioned: PromptCache | None = None

    def __init__(self, adapted: bool = True) -> None:
        base = Network()
        student = Adapted(base, suffix_targets(base, ["mix", "last"]), rank=2) if adapted else Network()
        self.networks: dict[str, nn.Module] = {"student": student, "auxiliary": Network()}
        self.frozen: dict[str, nn.Module] = {"base": base}

    def losses(self, turn: str, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        if turn == "auxiliary":
            restored = memory["restored"]
            return {"auxiliary": (model(restored + 0.1 * torch.randn_like(restored)) - restored).square().mean()}
        target = batch.high_quality
        restored = model(target + 0.1 * torch.randn_like(target))
        memory["restored"] = restored.detach()
        losses = {"pixel": (restored - target).abs().mean(), "opinion": (self.networks["auxiliary"](restored) - target).square().mean()}
        if "contrast" in wanted:
            # No number for a picture of one colour.
            losses["contrast"] = ((restored - target).flatten(1).std(1) / target.flatten(1).std(1)).square().mean()
        return {name: losses[name] for name in wanted}

    def output(self, batch: Batch) -> dict[str, Tensor]:
        return {"restored": self.networks["student"](batch.high_quality), "high_quality": batch.high_quality}

    def export(self, folder: Path, card: str) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for turn, network in self.networks.items():
            tensors = network.merged() if isinstance(network, Adapted) else dict(network.state_dict())
            paths.append(folder / f"{turn}.safetensors")
            save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, paths[-1])
        return paths


class OneTurnStage(TinyStage):
    """Pixels alone."""

    turns = {"student": ("pixel",)}

    def __init__(self, adapted: bool = False) -> None:
        super().__init__(adapted)
        del self.networks["auxiliary"]

    def losses(self, turn: str, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"pixel": (model(batch.high_quality) - batch.high_quality).abs().mean()}


def tiny_recipe(pictures: Path, **changes: Any) -> Recipe:
    data = {"source": "folder", "folder": str(pictures), "crop": 16, "workers": 0, **changes.pop("data", {})}
    return Recipe.model_validate({**RECIPE, "data": data, **changes})


def one_turn(recipe: dict[str, Any]) -> dict[str, Any]:
    return {**recipe, "optimizers": {"student": OPTIMIZER}, "phases": [{"until": 5, "weights": {"pixel": 1.0}}]}


def draw_pictures(folder: Path) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(4):
        Image.fromarray(random.integers(0, 256, (24, 20 + index, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


def tiny_trainer(recipe: Recipe, folder: Path, adapted: bool = True) -> Trainer:
    torch.manual_seed(recipe.seed)
    stage = (TinyStage if len(recipe.optimizers) == 2 else OneTurnStage)(adapted)
    return Trainer(recipe, stage, folder, cpu=True)


def train_and_record(recipe: Recipe, folder: Path, resume: bool = False, adapted: bool = True) -> None:
    """Train, and write the gradients of the first step and the last weights, before averaging, beside what every run leaves."""
    trainer = tiny_trainer(recipe, folder, adapted)
    gradients: dict[str, Tensor] = {}
    for turn, learner in trainer.learners.items():
        _record_gradients(learner, turn, gradients)
    trainer.run(resume)
    last = {f"{turn}.{name}": whole(value.detach()) for turn, each in trainer.learners.items() for name, value in each.trained.items()}
    if trainer.accelerator.is_main_process:
        save_file({name: value.contiguous() for name, value in gradients.items()}, folder / "gradients.safetensors")
        save_file({name: value.contiguous() for name, value in last.items()}, folder / "last.safetensors")
    trainer.accelerator.wait_for_everyone()


def _record_gradients(learner: Learner, turn: str, gradients: dict[str, Tensor]) -> None:
    descend = learner.descend

    def recorded(rate: float) -> float:
        for name, parameter in learner.trained.items():
            gradient = _gradient(parameter)
            if gradient is not None:
                gradients.setdefault(f"{turn}.{name}", whole(gradient).clone())
        return descend(rate)

    learner.descend = recorded  # type: ignore[method-assign]


def _gradient(parameter: nn.Parameter) -> Tensor | None:
    if hasattr(parameter, "_hp_mapping"):
        from deepspeed.utils import safe_get_full_grad

        return safe_get_full_grad(parameter)
    return parameter.grad


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("recipes", type=json.loads, help="by folder name")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--whole", action="store_true", help="train a whole student")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name, content in chosen.recipes.items():
        train_and_record(Recipe.model_validate(content), chosen.folder / name, chosen.resume, adapted=not chosen.whole)


if __name__ == "__main__":
    sys.exit(main())
