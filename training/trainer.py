"""The engine: steps, precision, averaging, checkpoints, log and validation pictures. It knows no method.

Everything random in step n follows from the recipe's seed and n, so a run that was killed and resumed has the same losses.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from ..core.errors import KintsugiError
from .checkpoints import load_checkpoint, save_checkpoint
from .data import training_batches, validation_batch
from .log import StepLog
from .recipe import Recipe
from .stages.base import Stage
from .validation import save_grid

log = logging.getLogger("kintsugi")

VALIDATION_PICTURES = 8


class Trainer:
    """Trains one stage in one folder: log.csv, checkpoints/, validation/, export/."""

    def __init__(self, recipe: Recipe, stage: Stage, folder: Path, cpu: bool = False) -> None:
        self.recipe, self.stage, self.folder = recipe, stage, folder
        self.accelerator = Accelerator(cpu=cpu, mixed_precision=recipe.precision, gradient_accumulation_steps=recipe.accumulate)
        for module in stage.frozen:
            module.to(self.accelerator.device).requires_grad_(False).eval()
        stage.trained.to(self.accelerator.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(
            (parameter for parameter in stage.trained.parameters() if parameter.requires_grad),
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            betas=(0.9, 0.99),
        )
        self.model, self.optimizer = self.accelerator.prepare(stage.trained, optimizer)
        self.average = AveragedModel(stage.trained, multi_avg_fn=moving_average(recipe.ema))
        self.step, self.seconds = 0, 0.0

    def run(self, resume: bool = False) -> list[Path]:
        """Train to the last step and export; returns the exported files. resume: go on from the newest checkpoint."""
        if resume:
            self._resume()
        steps_log = StepLog(self.folder / "log.csv", keep_below=self.step)
        batches = iter(training_batches(self.recipe, self.step * self.recipe.accumulate))
        bar = tqdm(total=self.recipe.steps, initial=self.step, unit="step", disable=not self.accelerator.is_local_main_process)
        started = time.monotonic() - self.seconds
        while self.step < self.recipe.steps:
            rate = self._rate()
            losses = self._update(batches, rate)
            self.step += 1
            self.seconds = time.monotonic() - started
            steps_log.write({"step": self.step, **losses, "lr": rate, "seconds": round(self.seconds, 1)})
            bar.update()
            bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()})
            self._keep()
        bar.close()
        return self._export()

    def _update(self, batches: Iterator[dict[str, Tensor]], rate: float) -> dict[str, float]:
        """One optimizer update over `accumulate` batches at this learning rate; the losses' means."""
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.step)
        weights = self.recipe.loss_weights(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        totals: dict[str, float] = {}
        self.model.train()
        for _ in range(self.recipe.accumulate):
            batch = {key: value.to(self.accelerator.device) for key, value in next(batches).items()}
            with self.accelerator.accumulate(self.model):
                with self.accelerator.autocast():
                    parts = self.stage.losses(self.model, batch, set(weights))
                loss = sum((weights[name] * parts[name] for name in weights), torch.zeros((), device=self.accelerator.device))
                self._refuse_nan(loss)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.gradient_clip)
                self.optimizer.step()
                self.optimizer.zero_grad()
            for name, value in {**parts, "loss": loss}.items():
                totals[name] = totals.get(name, 0.0) + float(value.detach()) / self.recipe.accumulate
        self.average.update_parameters(self.accelerator.unwrap_model(self.model))
        return totals

    def _rate(self) -> float:
        """Linear warm-up, then half a cosine down to 1 % of the recipe's learning rate."""
        recipe = self.recipe
        if self.step < recipe.warmup:
            return recipe.learning_rate * (self.step + 1) / recipe.warmup
        done = (self.step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
        return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))

    def _refuse_nan(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise KintsugiError(
                f"the loss is {float(loss.detach())} at step {self.step}.",
                where=str(self.folder),
                way_out="The last checkpoint is kept; resume with a lower learning_rate or precision=no.",
            )

    def _keep(self) -> None:
        """Checkpoint and validation pictures when their step has come."""
        last = self.step == self.recipe.steps
        if self.step % self.recipe.validate_every == 0 or last:
            self.validate()
        if self.step % self.recipe.checkpoint_every == 0 or last:
            facts = {"seconds": self.seconds, "recipe": self.recipe.model_dump(mode="json")}
            save_checkpoint(self.folder / "checkpoints", self.step, self._modules(), self.optimizer, facts)

    def _modules(self) -> dict[str, nn.Module]:
        return {"model": self.accelerator.unwrap_model(self.model), "average": self.average}

    def _resume(self) -> None:
        facts = load_checkpoint(self.folder / "checkpoints", self._modules(), self.optimizer)
        self.step, self.seconds = facts["step"], facts["seconds"]
        log.info("Going on from step %d.", self.step)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Grid PNG of held-out crops through the averaged weights, and PSNR of each column in dB."""
        batch = {key: value.to(self.accelerator.device) for key, value in validation_batch(self.recipe, VALIDATION_PICTURES).items()}
        self.average.eval()
        with self.accelerator.autocast():
            columns = self.stage.output(self.average.module, batch)
        return save_grid(self.folder / "validation" / f"step-{self.step:06d}.png", columns)

    def _export(self) -> list[Path]:
        """Write what the nodes load, with a card that tells how it was made."""
        metrics = self.validate()
        card = model_card(self.recipe, self.step, self.seconds, metrics)
        return self.stage.export(self.average.module, self.folder / "export", card)


def moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """Exponential moving average of weights whose decay starts at 0.1 and grows to `decay`, so that the start is forgotten."""

    @torch.no_grad()
    def update(average: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        held = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(list(average), list(current), 1 - held)

    return update


def model_card(recipe: Recipe, steps: int, seconds: float, metrics: dict[str, float]) -> str:
    """Markdown: recipe, data, steps, time and what held-out crops reached."""
    reached = "\n".join(f"| {name} | {value:.2f} |" for name, value in metrics.items())
    settings = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    return (
        f"# {recipe.stage}\n\n"
        f"Made by `kintsugi train` in {steps} steps of {recipe.batch * recipe.accumulate} crops, {seconds / 60:.0f} minutes.\n\n"
        f"PSNR on {VALIDATION_PICTURES} held-out crops (dB):\n\n| picture | PSNR |\n|---|---|\n{reached}\n\n"
        f"Recipe:\n\n```yaml\n{settings}```\n"
    )
