"""The engine: turns, precision, averaging, checkpoints, log and validation pictures. It knows no method.

Everything random in micro-batch n follows from the recipe's seed and n, so a run that was killed and resumed has the same losses,
and two processes see together what one sees that accumulates twice as much.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from ..core.errors import KintsugiError
from .average import Average
from .bank import Bank, BankBatches
from .card import Run, model_card
from .checkpoints import load_checkpoint, save_checkpoint
from .data import Batch, Batches, batch_loader, validation_batch
from .log import StepLog
from .recipe import Recipe
from .sources import picture_source
from .stages.base import Stage
from .validation import save_grid

log = logging.getLogger("kintsugi")

VALIDATION_PICTURES = 8
DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """Trains one stage in one folder: log.csv, checkpoints/, validation/, export/."""

    def __init__(self, recipe: Recipe, stage: Stage, folder: Path, cpu: bool = False) -> None:
        self.recipe, self.stage, self.folder = recipe, stage, folder
        self.accelerator = Accelerator(cpu=cpu, mixed_precision=recipe.precision, gradient_accumulation_steps=recipe.accumulate)
        self._place()
        self.models: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        for turn, network in stage.networks.items():
            self.models[turn], self.optimizers[turn] = self.accelerator.prepare(network, self._optimizer(turn))
        self.average = Average(stage.networks, recipe.ema)
        self.step, self.seconds = 0, 0.0

    def _place(self) -> None:
        device, frozen = self.accelerator.device, dict(self.stage.frozen)
        if self.stage.vae is not None:
            frozen["vae"] = self.stage.vae
        for module in frozen.values():
            module.to(device, DTYPES[self.recipe.frozen_precision]).requires_grad_(False).eval()
        for network in self.stage.networks.values():
            network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            network.train()

    def _optimizer(self, turn: str) -> torch.optim.Optimizer:
        chosen = self.recipe.optimizers[turn]
        trained = [parameter for parameter in self.stage.networks[turn].parameters() if parameter.requires_grad]
        return torch.optim.AdamW(trained, lr=chosen.learning_rate, betas=chosen.betas, eps=chosen.epsilon, weight_decay=chosen.weight_decay)

    def run(self, resume: bool = False) -> list[Path]:
        """Train to the last step and export; returns the exported files. resume: go on from the newest checkpoint."""
        if resume:
            self._resume()
        steps_log = StepLog(self.folder / "log.csv", keep_below=self.step)
        batches = self._numbered_batches()
        bar = tqdm(total=self.recipe.steps, initial=self.step, unit="step", disable=not self.accelerator.is_local_main_process)
        started = time.monotonic() - self.seconds
        while self.step < self.recipe.steps:
            losses = self._update(batches)
            rate = self.recipe.optimizers[next(iter(self.models))].rate(self.step, self.recipe.steps)
            self.step += 1
            self.seconds = time.monotonic() - started
            steps_log.write({"step": self.step, **losses, "lr": rate, "seconds": round(self.seconds, 1)})
            bar.update()
            bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()})
            self._keep()
        bar.close()
        return self._export()

    def _numbered_batches(self) -> Iterator[tuple[int, Batch]]:
        """The micro-batches of this process from the present step on, with their numbers in the whole run."""
        recipe, processes = self.recipe, self.accelerator.num_processes
        begin, end = (step * recipe.accumulate for step in (self.step, recipe.steps))
        numbers = [own * processes + self.accelerator.process_index for own in range(begin, end)]
        batches: Dataset[Batch]
        if recipe.data.bank and self.stage.vae is not None:
            batches = BankBatches(Bank(recipe.data, recipe.data.bank, self.stage.vae), recipe.seed, recipe.batch)
        else:
            batches = Batches(recipe.data, picture_source(recipe.data), recipe.seed, recipe.batch)
        return zip(numbers, batch_loader(batches, numbers, recipe.data.workers), strict=True)

    def _update(self, batches: Iterator[tuple[int, Batch]]) -> dict[str, float]:
        """One update of every turn's network over `accumulate` batches; the losses' means."""
        weights = self.recipe.loss_weights(self.step)
        turns = {turn: wanted for turn in self.models if (wanted := self._wanted(turn, weights))}
        for turn in turns:
            for group in self.optimizers[turn].param_groups:
                group["lr"] = self.recipe.optimizers[turn].rate(self.step, self.recipe.steps)
        totals: dict[str, float] = {}
        for _ in range(self.recipe.accumulate):
            number, batch = next(batches)
            batch = batch.to(self.accelerator.device)
            with self.accelerator.accumulate(*self.models.values()):
                for name, value in self._turns(turns, weights, number, batch).items():
                    totals[name] = totals.get(name, 0.0) + value / self.recipe.accumulate
                for turn in turns:
                    self._descend(turn)
        self.average.update()
        return totals

    def _wanted(self, turn: str, weights: dict[str, float]) -> frozenset[str]:
        """Losses to compute in this step; none for a turn that is not taken."""
        taken = self.step % self.recipe.optimizers[turn].every == 0
        return frozenset(name for name in self.stage.turns[turn] if name in weights and taken)

    def _turns(self, turns: dict[str, frozenset[str]], weights: dict[str, float], number: int, batch: Batch) -> dict[str, float]:
        """Gradients of every turn for one batch; its losses, and their weighted sum where there is one turn alone."""
        memory: dict[str, Tensor] = {}
        told: dict[str, float] = {}
        for place, (turn, wanted) in enumerate(turns.items()):
            torch.manual_seed((self.recipe.seed * 1_000_003 + number) * len(self.models) + place)
            for other, optimizer in self.optimizers.items():
                _require_gradients(optimizer, other == turn)
            with self.accelerator.autocast():
                parts = self.stage.losses(turn, self.models[turn], batch, wanted, memory)
            loss = sum((weights[name] * parts[name] for name in sorted(wanted)), torch.zeros((), device=self.accelerator.device))
            self._refuse_nan(loss, turn, batch)
            self.accelerator.backward(loss)
            told.update({name: float(value.detach()) for name, value in parts.items()})
            told["loss" if len(self.models) == 1 else f"{turn} loss"] = float(loss.detach())
        return told

    def _descend(self, turn: str) -> None:
        if self.accelerator.sync_gradients:
            self.accelerator.clip_grad_norm_(self.models[turn].parameters(), self.recipe.optimizers[turn].clip)
        self.optimizers[turn].step()
        self.optimizers[turn].zero_grad()

    def _refuse_nan(self, loss: Tensor, turn: str, batch: Batch) -> None:
        if not torch.isfinite(loss):
            raise KintsugiError(
                f"the loss of {turn} is {float(loss.detach())} at step {self.step}, for {'; '.join(batch.names)}.",
                where=str(self.folder),
                way_out="The last checkpoint is kept; resume with a lower learning_rate or precision=no.",
            )

    def _keep(self) -> None:
        """Checkpoint and validation pictures when their step has come."""
        last = self.step == self.recipe.steps
        if self.step % self.recipe.validate_every == 0 and not last:
            self.validate()
        if self.step % self.recipe.checkpoint_every == 0 or last:
            facts = {"seconds": self.seconds, "recipe": self.recipe.model_dump(mode="json")}
            save_checkpoint(self.folder / "checkpoints", self.step, self.stage.networks, self.optimizers, self.average, facts)

    def _resume(self) -> None:
        facts = load_checkpoint(self.folder / "checkpoints", self.stage.networks, self.optimizers, self.average)
        self.step, self.seconds = facts["step"], facts["seconds"]
        log.info("Going on from step %d.", self.step)

    def validate(self) -> dict[str, float]:
        """Grid PNG of held-out crops through the averaged weights, and PSNR of each column in dB."""
        batch = validation_batch(self.recipe, VALIDATION_PICTURES).to(self.accelerator.device)
        with self._shown(), torch.no_grad(), self.accelerator.autocast():
            torch.manual_seed(self.recipe.seed)
            columns = self.stage.output(batch)
        return save_grid(self.folder / "validation" / f"step-{self.step:06d}.png", columns)

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """Inside the block the networks are in evaluation mode and hold the averaged weights."""
        with self.average.applied():
            for network in self.stage.networks.values():
                network.eval()
            yield
            for network in self.stage.networks.values():
                network.train()

    def _export(self) -> list[Path]:
        """Write what the nodes load, with a card that tells how it was made."""
        metrics = self.validate()
        machines = self.accelerator.num_processes, self.accelerator.device
        card = model_card(self.recipe, Run(self.step, self.seconds, metrics, VALIDATION_PICTURES, *machines))
        with self._shown():
            return self.stage.export(self.folder / "export", card)


def _require_gradients(optimizer: torch.optim.Optimizer, required: bool) -> None:
    """For the parameters that it updates; others of the same network stay frozen."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.requires_grad_(required)
