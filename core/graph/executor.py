"""Runs prompts: what ComfyUI's executor means, with each node hashed, scheduled and called once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from .cache import Cache, Entry, LastPromptCache
from .events import Events, SilentEvents
from .execution import Execution, ExecutionResult, Order
from .instances import Instances
from .registry import Registry

__all__ = ["ExecutionResult", "Executor"]


class Executor:
    """Runs prompts one after the other. Node instances (one per node id) and, by `cache`, results live on between runs."""

    def __init__(self, registry: Registry, cache: Cache | None = None) -> None:
        self._registry = registry
        self._cache: Cache = LastPromptCache() if cache is None else cache
        self._instances = Instances()

    def run(
        self,
        prompt: Mapping[str, Any],
        outputs: Collection[str] | None = None,
        events: Events | None = None,
        extra_data: Mapping[str, Any] | None = None,
        keep: Collection[str] = (),
        given: Mapping[str, Sequence[Any]] | None = None,
        anew: Collection[str] = (),
    ) -> ExecutionResult:
        """Executes a validated prompt (API format) for its output nodes, or for those named in `outputs`.

        keep: further nodes whose values are wanted, if they run or are cached. given: nodes that do not run because what they would
        give is there already, a value per output; what follows them runs in every run. anew: nodes that run whatever is remembered
        of them, as those that write files. extra_data: what hidden inputs are made of besides the prompt, above all `extra_pnginfo`.
        A node that fails, and an interruption (`current_host().check_interrupted()`, looked at before each node), end the run and
        are told in the result. Raises WorkflowError for an unknown class, a circle or a link to nowhere. Not to be called with async
        nodes on a thread whose event loop is running.
        """
        roots = tuple(outputs) if outputs is not None else self._output_nodes(prompt)
        entries = {node_id: Entry([[value] for value in values]) for node_id, values in (given or {}).items()}
        order = Order(prompt, roots, frozenset(keep), events or SilentEvents(), dict(extra_data or {}), entries, frozenset(anew))
        with torch.inference_mode():
            return Execution(order, self._registry, self._cache, self._instances).run()

    def _output_nodes(self, prompt: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(node_id for node_id, node in prompt.items() if self._registry.definition(node["class_type"]).is_output)
