"""The engine: turns, precision, averaging, checkpoints, log and validation pictures. It knows no method.

Everything random in micro-batch n follows from the recipe's seed and n, so a run that was killed and resumed has the same losses,
and two processes see together what one sees that accumulates twice as much. All processes do the same work; one of them writes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, gather_object
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ..core.errors import Interrupted, KintsugiError
from .adapters import checkpoint_gradients
from .average import Average
from .bank import Bank, BankBatches
from .card import Run, model_card
from .checkpoints import load_checkpoint, newest_checkpoint, save_checkpoint
from .data import Batch, Batches, batch_loader, validation_batch
from .learners import LEARNERS
from .log import StepLog
from .recipe import Recipe
from .sources import picture_source
from .stages.base import Stage
from .stopping import StopRequest
from .validation import save_grid

log = logging.getLogger("kintsugi")

VALIDATION_PICTURES = 8
# What one process does alone, such as drawing a bank of pictures, the others wait for.
PATIENCE = timedelta(hours=6)
DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """Trains one stage in one folder: log.csv, checkpoints/, validation/, export/."""

    def __init__(self, recipe: Recipe, stage: Stage, folder: Path, cpu: bool = False) -> None:
        self.recipe, self.stage, self.folder = recipe, stage, folder
        self.accelerator = _accelerator(recipe, cpu)
        self._place()
        learner = LEARNERS[recipe.sharding]
        self.learners = {
            turn: learner(self.accelerator, network, recipe.optimizers[turn], recipe) for turn, network in stage.networks.items()
        }
        self.average = Average(stage.networks, recipe.ema)
        self.step, self.seconds = 0, 0.0
        self._stop, self._stopping = StopRequest(), False

    def _place(self) -> None:
        device, frozen = self.accelerator.device, dict(self.stage.frozen)
        if self.stage.vae is not None:
            frozen["vae"] = self.stage.vae
        for module in frozen.values():
            module.to(device, DTYPES[self.recipe.frozen_precision]).requires_grad_(False).eval()
        for network in self.stage.networks.values():
            network.to(device, torch.float32).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            network.train()
        if self.recipe.checkpointing:
            for module in (*frozen.values(), *self.stage.networks.values()):
                checkpoint_gradients(module)

    def run(self, resume: bool = False) -> list[Path]:
        """Train to the last step and export; returns the exported files, in the process that wrote them.

        resume: go on from the newest checkpoint. Raises Interrupted after Ctrl-C or SIGTERM, when the step is done and a checkpoint is
        written.
        """
        if resume:
            self._resume()
        writes = self.accelerator.is_main_process
        steps_log = StepLog(self.folder / "log.csv", keep_below=self.step) if writes else None
        self._encode_captions()
        batches = self._numbered_batches()
        started = time.monotonic() - self.seconds
        with self._stop, tqdm(total=self.recipe.steps, initial=self.step, unit="step", disable=not writes) as bar:
            while self.step < self.recipe.steps:
                losses = self._update(batches)
                rate = self.recipe.optimizers[next(iter(self.learners))].rate(self.step, self.recipe.steps)
                self.step += 1
                self.seconds = time.monotonic() - started
                if steps_log:
                    steps_log.write({"step": self.step, **losses, "lr": rate, "seconds": round(self.seconds, 1)})
                bar.update()
                bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()})
                self._keep()
        return self._export()

    def _encode_captions(self) -> None:
        """Those that the stage will be told, before its text encoders are in the way."""
        if self.stage.captioned is not None:
            with self.accelerator.local_main_process_first():
                self.stage.captioned.fill(picture_source(self.recipe.data).captions())

    def _numbered_batches(self) -> Iterator[tuple[int, Batch]]:
        """The micro-batches of this process from the present step on, with their numbers in the whole run."""
        recipe, processes = self.recipe, self.accelerator.num_processes
        begin, end = (step * recipe.accumulate for step in (self.step, recipe.steps))
        numbers = [own * processes + self.accelerator.process_index for own in range(begin, end)]
        batches: Dataset[Batch]
        with self.accelerator.local_main_process_first():
            if recipe.data.bank and self.stage.vae is not None:
                # A short run does not wait for more crops than it could look at.
                count = min(recipe.data.bank, recipe.steps * recipe.accumulate * processes * recipe.batch)
                batches = BankBatches(Bank(recipe.data, count, self.stage.vae), recipe.seed, recipe.batch)
            else:
                batches = Batches(recipe.data, picture_source(recipe.data), recipe.seed, recipe.batch)
        return zip(numbers, batch_loader(batches, numbers, recipe.data.workers), strict=True)

    def _update(self, batches: Iterator[tuple[int, Batch]]) -> dict[str, float]:
        """One update of every turn's network over `accumulate` batches; the losses' means over these and over processes."""
        weights = self.recipe.loss_weights(self.step)
        turns = {turn: wanted for turn in self.learners if (wanted := self._wanted(turn, weights))}
        totals: dict[str, float] = {}
        pictures: list[tuple[str, bool]] = []
        for _ in range(self.recipe.accumulate):
            number, batch = next(batches)
            with self.accelerator.accumulate(*(learner.exchanged for learner in self.learners.values())):
                told = self._turns(turns, weights, number, batch.to(self.accelerator.device))
            finite = all(map(math.isfinite, told.values()))
            pictures += ((name, finite) for name in batch.names)
            for name, value in told.items():
                totals[name] = totals.get(name, 0.0) + value / self.recipe.accumulate
        means = self._agree(totals)
        self._require_finite(means, pictures)
        norms = {turn: self.learners[turn].descend(self.recipe.optimizers[turn].rate(self.step, self.recipe.steps)) for turn in turns}
        self._require_finite({f"gradient of {turn}": norm for turn, norm in norms.items()}, pictures)
        self.average.update()
        return means

    def _wanted(self, turn: str, weights: dict[str, float]) -> frozenset[str]:
        """Losses to compute in this step; none for a turn that is not taken."""
        taken = self.step % self.recipe.optimizers[turn].every == 0
        return frozenset(name for name in self.stage.turns[turn] if name in weights and taken)

    def _turns(self, turns: dict[str, frozenset[str]], weights: dict[str, float], number: int, batch: Batch) -> dict[str, float]:
        """Gradients of every turn for one batch; its losses, and their weighted sum where there is one turn alone."""
        memory: dict[str, Tensor] = {}
        told: dict[str, float] = {}
        for place, (turn, wanted) in enumerate(turns.items()):
            torch.manual_seed((self.recipe.seed * 1_000_003 + number) * len(self.learners) + place)
            for other, learner in self.learners.items():
                learner.require_gradients(other == turn)
            with self.accelerator.autocast():
                parts = self.stage.losses(turn, self.learners[turn].model, batch, wanted, memory)
            loss = sum((weights[name] * parts[name] for name in sorted(wanted)), torch.zeros((), device=self.accelerator.device))
            self.learners[turn].backward(loss)
            # In an order that all processes agree on: a stage's may be that of a set.
            told.update({name: float(parts[name].detach()) for name in self.stage.turns[turn] if name in parts})
            told["loss" if len(self.learners) == 1 else f"{turn} loss"] = float(loss.detach())
        return told

    def _agree(self, losses: dict[str, float]) -> dict[str, float]:
        """Means over processes; and when one of them was asked to stop, all do."""
        self._stopping = self._stop.asked
        if self.accelerator.num_processes == 1:
            return losses
        own = torch.tensor([*losses.values(), float(self._stop.asked)], dtype=torch.float64, device=self.accelerator.device)
        *means, asked = self.accelerator.reduce(own, "mean").tolist()
        self._stopping = asked > 0
        return dict(zip(losses, means, strict=True))

    def _require_finite(self, values: dict[str, float], pictures: list[tuple[str, bool]]) -> None:
        """values: the same in all processes. pictures: those of this one, and whether their losses were finite."""
        wrong = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        if not wrong:
            return
        everywhere: list[tuple[str, bool]] = gather_object(pictures)
        suspects = [name for name, finite in everywhere if not finite] or [name for name, _ in everywhere]
        newest = newest_checkpoint(self.folder / "checkpoints")
        kept = f"The last checkpoint, {newest.name}, is kept: resume it without them, or" if newest else "There is no checkpoint yet:"
        raise KintsugiError(
            f"{'; '.join(wrong)} in step {self.step + 1}, of the pictures {'; '.join(suspects)}.",
            where=str(self.folder),
            way_out=f"{kept} start in another folder with a lower learning_rate or precision=no.",
        )

    def _keep(self) -> None:
        """Checkpoint and validation pictures when their step has come. Raises Interrupted when the run is to stop before its end."""
        last = self.step == self.recipe.steps
        stopping = self._stopping and not last
        if self.step % self.recipe.validate_every == 0 and not last and not stopping:
            self.validate()
        if self.step % self.recipe.checkpoint_every == 0 or last or stopping:
            facts = {
                "seconds": self.seconds, "processes": self.accelerator.num_processes, "recipe": self.recipe.model_dump(mode="json"),
            }  # fmt: skip
            writes = self.accelerator.is_main_process
            save_checkpoint(self.folder / "checkpoints", self.step, self.learners, self.average, facts, writes)
            self.accelerator.wait_for_everyone()
        if stopping:
            if self.accelerator.is_main_process:
                log.warning("Stopped after step %d, with a checkpoint. The same command with --resume goes on from there.", self.step)
            raise Interrupted

    def _resume(self) -> None:
        processes = self.accelerator.num_processes
        facts = load_checkpoint(self.folder / "checkpoints", self.learners, self.average, self.recipe, processes)
        self.step, self.seconds = facts["step"], facts["seconds"]
        log.info("Going on from step %d.", self.step)

    def validate(self) -> dict[str, float]:
        """Grid PNG of held-out crops through the averaged weights, and PSNR of each column in dB where it was written."""
        with self.accelerator.local_main_process_first():
            batch = validation_batch(self.recipe, VALIDATION_PICTURES)
        with self._shown(), torch.no_grad(), self.accelerator.autocast():
            torch.manual_seed(self.recipe.seed)
            columns = self.stage.output(batch.to(self.accelerator.device))
        if not self.accelerator.is_main_process:
            return {}
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
        files: list[Path] = []
        with self._shown(), ExitStack() as assembled:
            for learner in self.learners.values():
                assembled.enter_context(learner.assembled())
            if self.accelerator.is_main_process:
                machines = self.accelerator.num_processes, self.accelerator.device
                card = model_card(self.recipe, Run(self.step, self.seconds, metrics, VALIDATION_PICTURES, *machines))
                files = self.stage.export(self.folder / "export", card)
            self.accelerator.wait_for_everyone()
        return files


def _accelerator(recipe: Recipe, cpu: bool) -> Accelerator:
    # Else a second run in one process would have to have the precision of the first.
    AcceleratorState._reset_state()
    # A phase may leave parameters without a loss.
    averaging = DistributedDataParallelKwargs(find_unused_parameters=True)
    waiting = InitProcessGroupKwargs(timeout=PATIENCE)
    return Accelerator(
        cpu=cpu, mixed_precision=recipe.precision, gradient_accumulation_steps=recipe.accumulate, kwargs_handlers=[averaging, waiting]
    )
