"""How much of a run is the graph's own doing: milliseconds per trivial node."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kintsugi.core.graph.executor import Executor
from kintsugi.core.graph.registry import Registry
from kintsugi.core.graph.validation import validate

LENGTHS = (200, 2000)


class Step:
    """Adds one."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("INT",), "step", False

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"value": ("INT", {"default": 0}), "by": ("INT", {"default": 1})}}

    def step(self, value: int, by: int) -> tuple[int]:
        return (value + by,)


class End(Step):
    """The same, as an output."""

    OUTPUT_NODE = True


@dataclass(frozen=True)
class Overhead:
    """Milliseconds of processor time per node of a chain: checking it, running it, and running it again all cached."""

    nodes: int
    validate: float
    run: float
    rerun: float


def graph_overhead(repeats: int = 5) -> list[Overhead]:
    """The least of `repeats` measurements, for a chain of 200 and one of 2000 trivial nodes."""
    return [_overhead(length, repeats) for length in LENGTHS]


def _overhead(length: int, repeats: int) -> Overhead:
    registry = Registry({"Step": Step, "End": End})
    prompt: dict[str, Any] = {"0": {"class_type": "Step", "inputs": {"value": 0, "by": 1}}}
    for index in range(1, length):
        kind = "End" if index == length - 1 else "Step"
        prompt[str(index)] = {"class_type": kind, "inputs": {"value": [str(index - 1), 0], "by": 1}}
    measured = []
    for _ in range(repeats):
        executor = Executor(registry)
        measured.append(
            (
                _milliseconds(lambda: validate(prompt, registry)),
                _milliseconds(lambda executor=executor: executor.run(prompt)),  # type: ignore[misc]
                _milliseconds(lambda executor=executor: executor.run(prompt)),  # type: ignore[misc]
            )
        )
    return Overhead(length, *(min(column) / length for column in zip(*measured, strict=True)))


def _milliseconds(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return 1000 * (time.process_time() - begin)


def main() -> None:
    for each in graph_overhead():
        print(  # noqa: T201
            f"graph, chain of {each.nodes}: {each.run:.4f} ms per node (validation {each.validate:.4f}, cached rerun {each.rerun:.4f})"
        )


if __name__ == "__main__":
    main()
