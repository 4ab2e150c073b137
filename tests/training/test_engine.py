"""What a recipe's precision, checkpointing and ema do to a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kintsugi.core.errors import RecipeError
from kintsugi.training.adapters import Adapted, suffix_targets
from kintsugi.training.recipe import Recipe, load_recipe
from kintsugi.training.trainer import Trainer
from safetensors.torch import load_file
from test_processes import log
from tiny_stage import OneTurnStage, draw_pictures, one_turn, tiny_recipe, tiny_trainer
from torch import Tensor, nn


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path / "pictures")


class Denoiser(nn.Module):
    """A U-Net of diffusers on pictures, its other inputs held fast."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import UNet2DConditionModel

        self.unet = UNet2DConditionModel(
            sample_size=16, in_channels=3, out_channels=3, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=8, attention_head_dim=4,
        )  # fmt: skip

    def forward(self, pictures: Tensor) -> Tensor:
        prompt = torch.ones(len(pictures), 3, 8, device=pictures.device)
        return self.unet(pictures, 5.0, prompt).sample


class DenoiserStage(OneTurnStage):
    def __init__(self) -> None:
        super().__init__()
        base = Denoiser()
        self.frozen = {"base": base}
        self.networks = {"student": Adapted(base, suffix_targets(base, ["to_q", "conv1"]), rank=2)}


def single(pictures: Path, **changes: Any) -> Recipe:
    return Recipe.model_validate(one_turn(tiny_recipe(pictures, **changes).model_dump(mode="json")))


def test_checkpointing_computes_activations_anew_and_changes_no_weight(pictures: Path, tmp_path: Path) -> None:
    weights, kept = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        trainer = Trainer(single(pictures, checkpointing=checkpointing, ema=0), DenoiserStage(), tmp_path / str(checkpointing), cpu=True)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            trainer.run()
        weights.append(dict(trainer.stage.networks["student"].state_dict()))
        kept.append(sum(sizes))
    assert kept[1] < 0.7 * kept[0]
    for name, tensor in weights[0].items():
        assert torch.equal(weights[1][name], tensor), name


def test_bf16_computes_in_bf16_and_keeps_weights_average_and_optimizer_in_float32(pictures: Path, tmp_path: Path) -> None:
    tiny_trainer(tiny_recipe(pictures), tmp_path / "exact").run()
    trainer = tiny_trainer(tiny_recipe(pictures, precision="bf16", frozen_precision="bf16"), tmp_path / "bf16")
    computed = []
    trainer.stage.networks["auxiliary"].first.register_forward_hook(lambda module, inputs, output: computed.append(output.dtype))
    trainer.run()
    assert set(computed) == {torch.bfloat16}
    assert {tensor.dtype for tensor in trainer.stage.frozen["base"].state_dict().values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in trainer.average.tensors.values()} == {torch.float32}
    for learner in trainer.learners.values():
        assert {value.dtype for _, value in learner.state()} | {value.dtype for value in learner.trained.values()} == {torch.float32}
    for row, exact in zip(log(tmp_path / "bf16"), log(tmp_path / "exact"), strict=True):
        assert row != exact
        assert row == pytest.approx(exact, rel=0.03)


def test_what_is_exported_is_the_moving_average_whose_decay_grows(pictures: Path, tmp_path: Path) -> None:
    trainer = tiny_trainer(tiny_recipe(pictures, steps=30, ema=0.6), tmp_path / "run", adapted=False)
    expected = {name: value.detach().clone().double() for name, value in trainer.learners["student"].trained.items()}
    update = trainer._update
    decays = []

    def averaged(batches: Any) -> dict[str, float]:
        losses = update(batches)
        decays.append(min(0.6, (1 + trainer.step) / (10 + trainer.step)))
        for name, value in trainer.learners["student"].trained.items():
            expected[name] = decays[-1] * expected[name] + (1 - decays[-1]) * value.detach()
        return losses

    trainer._update = averaged  # type: ignore[method-assign]
    trainer.run()
    assert decays[0] == 0.1 and decays[-1] == 0.6
    exported = load_file(tmp_path / "run" / "export" / "student.safetensors")
    for name, tensor in expected.items():
        torch.testing.assert_close(exported[name].double(), tensor, rtol=1e-5, atol=1e-7)


def test_without_an_average_the_last_weights_are_exported(pictures: Path, tmp_path: Path) -> None:
    trainer = tiny_trainer(tiny_recipe(pictures, ema=0), tmp_path / "run", adapted=False)
    trainer.run()
    exported = load_file(tmp_path / "run" / "export" / "student.safetensors")
    for name, tensor in trainer.learners["student"].trained.items():
        torch.testing.assert_close(exported[name], tensor.detach(), rtol=1e-6, atol=1e-8)


def test_a_turn_that_is_taken_every_third_step_updates_its_network_then_only(pictures: Path, tmp_path: Path) -> None:
    content = tiny_recipe(pictures, steps=7).model_dump(mode="json")
    content["optimizers"]["auxiliary"]["every"] = 3
    trainer = tiny_trainer(Recipe.model_validate(content), tmp_path / "run")
    update, changed = trainer._update, []

    def watched(batches: Any) -> dict[str, float]:
        before = {turn: [value.detach().clone() for value in each.trained.values()] for turn, each in trainer.learners.items()}
        losses = update(batches)
        for turn, learner in trainer.learners.items():
            if any(not torch.equal(*pair) for pair in zip(before[turn], learner.trained.values(), strict=True)):
                changed.append((turn, trainer.step))
        return losses

    trainer._update = watched  # type: ignore[method-assign]
    trainer.run()
    assert [step for turn, step in changed if turn == "auxiliary"] == [0, 3, 6]
    assert [step for turn, step in changed if turn == "student"] == list(range(7))


def test_a_plain_no_means_no_16_bit_precision(tmp_path: Path) -> None:
    assert load_recipe("mini-vae", {"precision": "no", "frozen_precision": "no"}).precision == "no"
    with pytest.raises(RecipeError, match="precision"):
        load_recipe("mini-vae", {"precision": "fp16"})
