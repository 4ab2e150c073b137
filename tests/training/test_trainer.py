"""The engine on tiny models and a folder of drawn pictures."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from kintsugi.core.errors import KintsugiError, RecipeError
from kintsugi.core.methods.one_step import Tiling, restore
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.weights.gendr import read_generator
from kintsugi.core.weights.options import LoadOptions
from kintsugi.training.prompts import PromptCache
from kintsugi.training.recipe import load_recipe, recipe_names
from kintsugi.training.run import train
from kintsugi.training.stages import build_stage
from kintsugi.training.trainer import Trainer

TINY = {
    "steps": "4", "batch": "2", "accumulate": "2", "checkpoint_every": "2", "validate_every": "2", "precision": "'no'",
    "data.source": "folder", "data.crop": "32", "data.workers": "0",
    "phases": "[{until: 3, weights: {pixel: 1.0}}, {until: 4, weights: {pixel: 1.0, gradient: 0.5}}]",
}  # fmt: skip
TINY_VAE = {**TINY, "settings": "{channels: [16, 48, 48], latent_channels: 16, norm_groups: 4}"}


def losses(folder: Path) -> list[list[str]]:
    with (folder / "log.csv").open(newline="") as file:
        return [[row["step"], row["pixel"], row["loss"]] for row in csv.DictReader(file)]


def vae_recipe(drawn_pictures: Path) -> dict[str, str]:
    return {**TINY_VAE, "data.folder": str(drawn_pictures)}


def test_a_killed_and_resumed_run_has_the_same_losses_and_weights(drawn_pictures: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    files = train("mini-vae", whole, vae_recipe(drawn_pictures), cpu=True)
    recipe = load_recipe("mini-vae", vae_recipe(drawn_pictures))
    torch.manual_seed(recipe.seed)
    trainer = Trainer(recipe, build_stage(recipe), killed, cpu=True)
    stop_after(trainer, 3)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    resumed = train("mini-vae", killed, vae_recipe(drawn_pictures), resume=True, cpu=True)
    assert losses(killed) == losses(whole)
    assert files[0].read_bytes() == resumed[0].read_bytes()


def stop_after(trainer: Trainer, steps: int) -> None:
    """Ctrl-C in the middle of step `steps` + 1: the newest checkpoint is older than that."""
    update = trainer._update

    def interrupted(batches: object) -> dict[str, float]:
        if trainer.step == steps:
            raise KeyboardInterrupt
        return update(batches)

    trainer._update = interrupted  # type: ignore[method-assign]


def test_a_run_leaves_its_log_checkpoints_validation_pictures_and_export(drawn_pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("mini-vae", run, vae_recipe(drawn_pictures), cpu=True)
    assert [row[0] for row in losses(run)] == ["1", "2", "3", "4"]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-000002", "step-000004"]
    assert sorted(path.name for path in (run / "validation").iterdir()) == ["step-000002.png", "step-000004.png"]
    assert sorted(path.name for path in (run / "export").iterdir()) == ["mini-vae.md", "mini-vae.safetensors"]


def test_what_training_exports_restores_a_picture(drawn_pictures: Path, tmp_path: Path) -> None:
    vae = train("mini-vae", tmp_path / "vae", vae_recipe(drawn_pictures), cpu=True)[0]
    settings = f"{{vae: '{vae}', channels: [16, 16], norm_groups: 4, prompt_tokens: 2, prompt_width: 8}}"
    phases = "[{until: 4, weights: {latent: 1.0, pixel: 1.0}}]"
    recipe = {**TINY, "phases": phases, "settings": settings, "data.folder": str(drawn_pictures)}
    student = train("mini-restorer", tmp_path / "student", recipe, cpu=True)[0]
    generator = read_generator(student, LoadOptions())
    restored = restore(generator, torch.rand(1, 20, 33, 3), scale=2, seed=0, tiling=Tiling(32, 8))
    assert restored.shape == (1, 40, 66, 3)


def test_the_student_starts_as_the_identity_of_the_latent(drawn_pictures: Path, tmp_path: Path) -> None:
    vae = train("mini-vae", tmp_path / "vae", {**vae_recipe(drawn_pictures), "steps": "1"}, cpu=True)[0]
    settings = f"{{vae: '{vae}', channels: [16, 16], norm_groups: 4}}"
    stage = build_stage(load_recipe("mini-restorer", {"settings": settings}))
    latent = torch.randn(1, 16, 4, 4)
    assert torch.equal(stage.networks["student"](latent), latent)


def test_an_earlier_run_is_not_overwritten_without_resume(drawn_pictures: Path, tmp_path: Path) -> None:
    train("mini-vae", tmp_path / "run", vae_recipe(drawn_pictures), cpu=True)
    with pytest.raises(RecipeError, match="--resume"):
        train("mini-vae", tmp_path / "run", vae_recipe(drawn_pictures), cpu=True)


def test_a_weight_that_is_no_number_stops_the_run_in_its_first_step(drawn_pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(KintsugiError, match=r"loss is nan in step 1, .* There is no checkpoint yet"):
        train("mini-vae", tmp_path / "run", {**vae_recipe(drawn_pictures), "phases": "[{until: 9, weights: {pixel: .nan}}]"}, cpu=True)


def test_captions_are_encoded_before_the_first_step(drawn_pictures: Path, tmp_path: Path) -> None:
    (drawn_pictures / "1.txt").write_text("a coarse picture", encoding="utf-8")
    asked: list[str] = []

    def encode(text: str) -> PromptEmbedding:
        asked.append(text)
        assert not (tmp_path / "run" / "checkpoints").exists()
        return PromptEmbedding(torch.zeros(1, 2, 3))

    recipe = load_recipe("mini-vae", vae_recipe(drawn_pictures))
    stage = build_stage(recipe)
    vars(stage)["captioned"] = PromptCache(encode, "counted", tmp_path / "prompts")
    Trainer(recipe, stage, tmp_path / "run", cpu=True).run()
    assert sorted(asked) == ["", "a coarse picture"]


def test_unknown_keys_stages_and_settings_are_named() -> None:
    with pytest.raises(RecipeError, match=r"data\.corp"):
        load_recipe("mini-vae", {"data.corp": "64"})
    with pytest.raises(RecipeError, match="widht"):
        build_stage(load_recipe("mini-vae", {"settings": "{widht: 3}"}))
    with pytest.raises(RecipeError, match="gendr-restorer"):
        build_stage(load_recipe("mini-vae", {"stage": "gender"}))
    with pytest.raises(RecipeError, match="mini-vae"):
        load_recipe("no-such-recipe")


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_is_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.phases[-1].until == recipe.steps
