"""One run of one prompt."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import BadValueError, Interrupted, KintsugiError, WorkflowError
from ..runtime import current_host
from .async_calls import AsyncCalls
from .blocker import ExecutionBlocker
from .cache import Cache, Entry
from .events import Events, NodeFailure, RunningNode, running
from .instances import Instances
from .node_code import NodeCodeError, call, call_async
from .node_inputs import Lists, NodeContext, blocker_among, calls, gather_inputs
from .node_results import Outputs, Returned, merge_outputs, merge_ui, read_returned
from .prompt_graph import DynamicPrompt, find_cycle, is_link, node_title, sources
from .registry import Definition, Registry
from .scheduling import Schedule
from .signatures import Signatures
from .value_store import ValueStore

log = logging.getLogger("kintsugi")


@dataclass(frozen=True)
class Order:
    """What is to be run: the outputs wanted, further nodes to keep the values of, who is told, and data beside the prompt.

    given: what nodes that need not run give. anew: nodes that run whatever is remembered of them.
    """

    prompt: Mapping[str, Any]
    roots: tuple[str, ...]
    keep: frozenset[str]
    events: Events
    extra_data: Mapping[str, Any]
    given: Mapping[str, Entry]
    anew: frozenset[str]


@dataclass
class ExecutionResult:
    """What a run came to.

    ui: what nodes showed, by node id. values: per output node (and node in `keep`) its outputs, per slot the list of
    values (one value unless lists were mapped). graph: the prompt as it had grown at the end. error: the node that
    failed. blocked: nodes that did not run because a blocker with a message reached them.
    """

    status: Literal["success", "error", "interrupted"]
    ui: dict[str, dict[str, list[Any]]]
    values: dict[str, Outputs]
    graph: DynamicPrompt
    error: NodeFailure | None = None
    blocked: list[NodeFailure] = field(default_factory=list)


class _NodeFailedError(Exception):
    def __init__(self, failure: NodeFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Execution:
    """The state of one run; `run()` may be called once."""

    def __init__(self, order: Order, registry: Registry, cache: Cache, instances: Instances) -> None:
        self._order, self._events = order, order.events
        self._registry, self._cache, self._instances = registry, cache, instances
        self._graph = DynamicPrompt(order.prompt)
        self._context = NodeContext(self._graph, order.extra_data)
        self._signatures = Signatures(self._graph, registry, self._context, order.given, order.anew)
        self._schedule = Schedule(self._take_in, self._available, self._is_output, self._is_urgent)
        self._async = AsyncCalls()
        self._values = ValueStore({*order.roots, *order.keep})
        self._expanded: dict[str, list[Returned]] = {}
        self._uncached: set[str] = set()
        self._current: str | None = None
        self._result = ExecutionResult("success", {}, {}, self._graph)

    def run(self) -> ExecutionResult:
        """Visit nodes until the outputs have run, one fails or the person interrupts. Raises WorkflowError for a circle."""
        result = self._result
        try:
            self._start()
            self._work()
            self._events.execution_success()
        except Interrupted:
            result.status = "interrupted"
            self._events.execution_interrupted(self._current)
        except _NodeFailedError as failed:
            result.status, result.error = "error", failed.failure
            self._events.execution_error(failed.failure)
        finally:
            self._async.close()
            self._cache.finish(self._signatures.known())
            self._instances.keep_only(self._graph.has_node)
        self._collect_values()
        return result

    def _start(self) -> None:
        self._events.execution_start()
        for root in self._order.roots:
            self._signatures.of(root)
        self._cache.begin(self._signatures.known())
        self._events.execution_cached([node for node, signature in self._signatures.items() if self._cache.get(signature)])
        for root in self._order.roots:
            self._schedule.add(root)

    def _work(self) -> None:
        while self._schedule:
            current_host().check_interrupted()
            node_id = self._schedule.pop()
            if node_id is not None:
                self._current = node_id
                with self._on_behalf_of(node_id):
                    self._visit(node_id)
            elif self._async:
                self._collect_async()
            else:
                circle = find_cycle(self._schedule.unfinished(), self._schedule.waits_for) or self._schedule.unfinished()
                raise WorkflowError(f"Expanded nodes depend on each other in a circle: {' -> '.join(circle)}.")

    @contextmanager
    def _on_behalf_of(self, node_id: str) -> Iterator[None]:
        """Inside, the node is the running one, and its errors and ours about it become its failure."""
        graph, class_type = self._graph, self._definition(node_id).class_type
        node = RunningNode(node_id, class_type, graph.get_display_node_id(node_id), graph.get_parent_node_id(node_id), self._events)
        try:
            with running(node):
                yield
        except NodeCodeError as raised:
            raise _NodeFailedError(self._failure(node_id, raised.error)) from raised.error
        except KintsugiError as error:
            raise _NodeFailedError(self._failure(node_id, error)) from error

    def _failure(self, node_id: str, error: Exception | None, message: str = "") -> NodeFailure:
        node = self._graph.get_node(node_id)
        if error is not None:
            message = str(error) if isinstance(error, KintsugiError) else f"{type(error).__name__}: {error}"
            log.debug("Node %s failed.", node_id, exc_info=error)
        return NodeFailure(node_id, node["class_type"], node_title(node), error, message)

    def _definition(self, node_id: str) -> Definition:
        return self._registry.definition(self._graph.get_node(node_id)["class_type"])

    # What the schedule asks.

    def _take_in(self, node_id: str) -> list[str]:
        """The sources a node waits for: all but its lazy ones. The values of all are held for it."""
        node, lazy = self._graph.get_node(node_id), self._definition(node_id).lazy_inputs
        self._values.hold(node_id, sources(node))
        if not lazy:
            return sources(node)
        return list(dict.fromkeys(value[0] for name, value in node["inputs"].items() if is_link(value) and name not in lazy))

    def _available(self, node_id: str) -> bool:
        """Whether a result is given or cached; then it is taken from there, and what it shows is shown again."""
        entry = self._order.given.get(node_id) or self._cache.get(self._signatures.of(node_id))
        if entry is None:
            return False
        self._values.put(node_id, entry)
        if self._definition(node_id).resends_ui:
            self._show(node_id, entry)
        return True

    def _is_output(self, node_id: str) -> bool:
        return self._definition(node_id).is_output

    def _is_urgent(self, node_id: str) -> bool:
        definition = self._definition(node_id)
        return definition.is_output or definition.is_async

    # A node's turn.

    def _visit(self, node_id: str) -> None:
        definition = self._definition(node_id)
        if node_id in self._expanded:
            self._finish_expansion(node_id, definition)
            return
        twin = self._cache.get(self._signatures.of(node_id))
        if twin is not None:
            self._complete(node_id, twin)
            return
        node = self._graph.get_node(node_id)
        inputs, unevaluated = gather_inputs(node_id, node, definition, self._context, self._values.of_slot)
        instance = self._instances.get(node_id, definition)
        needed = self._still_needed(instance, definition, inputs, unevaluated)
        if needed:
            self._schedule.require(node_id, list(dict.fromkeys(node["inputs"][name][0] for name in needed)))
            return
        self._events.executing(node_id)
        function = getattr(instance, definition.function)
        if definition.is_async:
            self._async.start(node_id, self._call_async(node_id, function, definition, inputs))
        else:
            self._accept(node_id, definition, self._call(node_id, function, definition, inputs))

    def _still_needed(self, instance: Any, definition: Definition, inputs: Lists, unevaluated: set[str]) -> list[str]:
        """Lazy inputs that check_lazy_status names and that have not been evaluated."""
        if not unevaluated or not hasattr(instance, "check_lazy_status"):
            return []
        named: dict[str, None] = {}
        for arguments in calls(inputs, definition.input_is_list):
            if blocker_among(arguments, definition.input_is_list) is None:
                named |= dict.fromkeys(call(instance.check_lazy_status, **arguments) or ())
        return [name for name in named if name in unevaluated]

    def _call(self, node_id: str, function: Any, definition: Definition, inputs: Lists) -> list[Returned]:
        results = []
        for arguments in calls(inputs, definition.input_is_list):
            blocker = blocker_among(arguments, definition.input_is_list)
            returned = call(function, **arguments) if blocker is None else self._block(node_id, blocker)
            results.append(read_returned(returned, definition))
        return results

    async def _call_async(self, node_id: str, function: Any, definition: Definition, inputs: Lists) -> list[Returned]:
        async def one(arguments: dict[str, Any]) -> Returned:
            blocker = blocker_among(arguments, definition.input_is_list)
            returned = await call_async(function, **arguments) if blocker is None else self._block(node_id, blocker)
            return read_returned(returned, definition)

        return await asyncio.gather(*(one(arguments) for arguments in calls(inputs, definition.input_is_list)))

    def _collect_async(self) -> None:
        for node_id, task in self._async.wait():
            self._current = node_id
            with self._on_behalf_of(node_id):
                self._accept(node_id, self._definition(node_id), task.result())

    def _block(self, node_id: str, blocker: ExecutionBlocker) -> ExecutionBlocker:
        """What a blocked call returns: the blocker, whose message is told here and not again further down.

        Such results are not cached, or the message would be missing from the next run.
        """
        if blocker.message is None:
            told = blocker.told
        else:
            told = True
            failure = self._failure(node_id, None, f"Execution was blocked: {blocker.message}")
            self._result.blocked.append(failure)
            self._events.execution_error(failure)
        if told:
            self._uncached.add(node_id)
        return ExecutionBlocker(None, told)

    def _accept(self, node_id: str, definition: Definition, results: list[Returned]) -> None:
        if any(result.expand is not None for result in results):
            self._expand(node_id, results)
        else:
            self._finish(node_id, merge_outputs(results, definition), results)

    def _expand(self, node_id: str, results: list[Returned]) -> None:
        """Adds the nodes that stand in for this one; it comes up again when those its results come from have run."""
        needed: dict[str, None] = {}
        for result in results:
            if result.expand is None:
                continue
            for new_id, node in result.expand.items():
                if self._graph.has_node(new_id):
                    raise BadValueError(f"The expansion uses the id {new_id}, which is taken.")
                self._graph.add_ephemeral_node(new_id, node, node_id, node.get("override_display_id", node_id))
                if self._definition(new_id).is_output:
                    needed[new_id] = None
            needed |= {value[0]: None for value in result.values if is_link(value)}
        self._expanded[node_id] = results
        self._values.hold(node_id, list(needed))
        self._schedule.require(node_id, list(needed))

    def _finish_expansion(self, node_id: str, definition: Definition) -> None:
        results = self._expanded.pop(node_id)
        self._finish(node_id, merge_outputs(results, definition, self._values.of_slot), results)

    def _finish(self, node_id: str, outputs: Outputs, results: list[Returned]) -> None:
        entry = Entry(outputs, merge_ui(results), self._graph.is_ephemeral(node_id))
        if node_id not in self._uncached:
            self._cache.put(self._signatures.of(node_id), entry)
        self._complete(node_id, entry)

    def _complete(self, node_id: str, entry: Entry) -> None:
        self._values.put(node_id, entry)
        self._show(node_id, entry)
        self._events.finished(node_id)
        self._schedule.finish(node_id)
        self._values.release(node_id)

    def _show(self, node_id: str, entry: Entry) -> None:
        if entry.ui is not None:
            self._result.ui[node_id] = entry.ui
            self._events.executed(node_id, entry.ui)

    def _collect_values(self) -> None:
        """Values of outputs and kept nodes; one whose consumers were all cached was not visited and is looked up."""
        for node_id in (*self._order.roots, *sorted(self._order.keep)):
            entry = self._values.get(node_id)
            if entry is None and node_id in self._signatures:
                entry = self._cache.get(self._signatures.of(node_id))
            if entry is not None:
                self._result.values[node_id] = entry.outputs
