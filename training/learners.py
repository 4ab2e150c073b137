"""How the network of one turn learns, alone or in several processes: replicated, or sharded over them.

accelerate launches and averages (DDP). Its own plugins for FSDP and DeepSpeed want a GPU, and DeepSpeed's steps inside of backward(),
which turns cannot use; so torch's fully_shard() and DeepSpeed's engine are called directly, by the same code on GPUs and on CPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ..core.errors import MissingPackageError
from .recipe import OptimizerSettings, Recipe
from .shares import fill, whole

if TYPE_CHECKING:
    from accelerate import Accelerator

MOMENTS = ("exp_avg", "exp_avg_sq")
STEP = "step"

# Tensors of an optimizer by parameter name and kind.
State = Iterator[tuple[str, Tensor]]


class Learner:
    """Every process holds the whole network and the whole optimizer; gradients are averaged over processes.

    model: what a stage calls with gradients. exchanged: the module whose gradient exchange accelerate may put off while it accumulates.
    """

    def __init__(self, accelerator: Accelerator, network: nn.Module, settings: OptimizerSettings, recipe: Recipe) -> None:
        """network: on its device; parameters that do not require gradients stay as they are."""
        self.network, self.settings = network, settings
        self._accelerator, self._recipe = accelerator, recipe
        self._trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        self.model, self.optimizer = self._prepared()

    @property
    def exchanged(self) -> nn.Module:
        """Shares of gradients are added up in every micro-batch, since whole ones would have to be kept to put that off."""
        return self.model if isinstance(self.model, nn.parallel.DistributedDataParallel) else self.network

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, or the shares in them, by name."""
        return {name: self.network.get_parameter(name) for name in self._trained}

    @contextmanager
    def assembled(self) -> Iterator[None]:
        """Inside the block the network holds its whole weights, to be read; it is not to be called. For all processes together."""
        yield

    def require_gradients(self, required: bool) -> None:
        """Of what is trained."""
        for parameter in self.trained.values():
            parameter.requires_grad_(required)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one micro-batch's loss."""
        self._accelerator.backward(loss)

    def descend(self, rate: float) -> float:
        """Update the network once with the gradients so far, and forget them; their norm before it is clipped."""
        self._set_rate(rate)
        norm = whole(nn.utils.clip_grad_norm_(self.trained.values(), self.settings.clip))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(norm)

    def state(self) -> State:
        """The optimizer's tensors, whole. To be taken by all processes together."""
        for name, parameter in self.trained.items():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                yield f"{name}.{kind}", whole(value)

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what state() gave, of any way of learning and number of processes."""
        for key, value in tensors.items():
            name, kind = key.rsplit(".", 1)
            parameter = self.network.get_parameter(name)
            target = value.clone() if kind == STEP else torch.zeros_like(parameter)
            fill(target, value)
            self.optimizer.state[parameter][kind] = target

    def _prepared(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = cast(nn.Module, self._accelerator.prepare_model(self.network))
        return model, self._adamw()

    def _prepare_to_share(self) -> None:
        """Autocast as accelerate adds it, and weights that lie in one piece, since shares are cut from them."""
        self._accelerator.prepare_model(self.network, evaluation_mode=True).to(memory_format=torch.contiguous_format)

    def _adamw(self) -> torch.optim.AdamW:
        chosen = self.settings
        trained = list(self.trained.values())
        return torch.optim.AdamW(trained, chosen.learning_rate, chosen.betas, chosen.epsilon, chosen.weight_decay)

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate


class ShardedLearner(Learner):
    """Every process holds a share of weights, gradients and optimizer; a block's weights are brought together while it computes (FSDP2)."""

    def _prepared(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        from torch.distributed.fsdp import fully_shard

        self._prepare_to_share()
        for block in _blocks(self.network):
            fully_shard(block, reshard_after_forward=True)
        # So do the weights outside of blocks, which else stayed whole after a call without a backward pass.
        fully_shard(self.network, reshard_after_forward=True)
        return self.network, self._adamw()

    @contextmanager
    def assembled(self) -> Iterator[None]:
        shares = [(module, name, share) for module in self.network.modules() for name, share in module.named_parameters(recurse=False)]
        for module, name, share in shares:
            setattr(module, name, nn.Parameter(whole(share.detach()), requires_grad=False))
        try:
            yield
        finally:
            for module, name, share in shares:
                setattr(module, name, share)


class ZeroLearner(Learner):
    """Every process holds the whole network and a share of gradients and optimizer: DeepSpeed's ZeRO stage 2."""

    def backward(self, loss: Tensor) -> None:
        engine = cast(Any, self.model)
        engine.set_gradient_accumulation_boundary(self._accelerator.sync_gradients)
        engine.backward(loss)

    def descend(self, rate: float) -> float:
        engine = cast(Any, self.model)
        self._set_rate(rate)
        engine.step()
        return float(engine.get_global_grad_norm())

    def state(self) -> State:
        from deepspeed.utils import safe_get_full_optimizer_state

        if not self._inner.state:
            return
        step = next(iter(self._inner.state.values()))[STEP]
        for name, parameter in self.trained.items():
            yield f"{name}.{STEP}", step.clone()
            for kind in MOMENTS:
                yield f"{name}.{kind}", safe_get_full_optimizer_state(parameter, kind)

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        device = self._accelerator.device
        for parameter in self.trained.values():
            # The engine trains a copy of its share of the weights, which were loaded into the network before.
            safe_set_full_fp32_param(parameter, parameter.detach().float())
        if not tensors:
            return
        step = next(value for key, value in tensors.items() if key.endswith(f".{STEP}"))
        for share in (share for group in self._inner.param_groups for share in group["params"]):
            self._inner.state[share] = {STEP: step.clone(), **{kind: torch.zeros_like(share) for kind in MOMENTS}}
        # What links a parameter to its place in the shares; DeepSpeed itself does so in the first step.
        cast(Any, self.optimizer)._lazy_init_hp_params_optimizer_state()
        for name, parameter in self.trained.items():
            for kind in MOMENTS:
                safe_set_full_optimizer_state(parameter, tensors[f"{name}.{kind}"].to(device), kind)

    @property
    def _inner(self) -> torch.optim.Optimizer:
        """AdamW on the shares."""
        return cast(Any, self.optimizer).optimizer

    def _prepared(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        if find_spec("deepspeed") is None:
            raise MissingPackageError("sharding: zero2 needs DeepSpeed.", way_out="Install it: pip install deepspeed")
        import deepspeed

        self._prepare_to_share()
        engine, optimizer, *_ = deepspeed.initialize(
            model=self.network, optimizer=self._adamw(), config=zero_config(self._recipe, self.settings), dist_init_required=False
        )
        return engine, optimizer


def zero_config(recipe: Recipe, settings: OptimizerSettings) -> dict[str, Any]:
    """DeepSpeed's configuration: float32 weights, which autocast casts as it does elsewhere."""
    return {
        "train_micro_batch_size_per_gpu": recipe.batch, "gradient_accumulation_steps": recipe.accumulate,
        "gradient_clipping": settings.clip, "zero_optimization": {"stage": 2}, "zero_allow_untested_optimizer": True,
        "steps_per_print": recipe.steps + 1,
    }  # fmt: skip


LEARNERS: dict[str, type[Learner]] = {"none": Learner, "fsdp": ShardedLearner, "zero2": ZeroLearner}


def _blocks(network: nn.Module) -> list[nn.Module]:
    """The parts of diffusers networks that are to be sharded one by one, the innermost first."""
    kinds = {kind for module in network.modules() for kind in getattr(module, "_no_split_modules", None) or ()}
    return [module for module in reversed(list(network.modules())) if type(module).__name__ in kinds and module is not network]
