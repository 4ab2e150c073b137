"""Small real node classes for the tests of the graph, and a listener that writes down what it is told."""

# ruff: noqa: N802

from __future__ import annotations

import asyncio
from typing import Any

from kintsugi.core.errors import Interrupted
from kintsugi.core.graph.blocker import ExecutionBlocker
from kintsugi.core.graph.events import NodeFailure, SilentEvents, running_node


class Recorder(SilentEvents):
    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def execution_start(self) -> None:
        self.told.append(("start",))

    def execution_cached(self, nodes: list[str]) -> None:
        self.told.append(("cached", sorted(nodes)))

    def executing(self, node: str) -> None:
        self.told.append(("executing", node))

    def executed(self, node: str, ui: dict[str, list[Any]]) -> None:
        self.told.append(("executed", node, ui))

    def progress(self, node: str, value: int, total: int, preview: Any) -> None:
        self.told.append(("progress", node, value, total))

    def execution_error(self, failure: NodeFailure) -> None:
        self.told.append(("error", failure.node_id))

    def execution_interrupted(self, node: str | None) -> None:
        self.told.append(("interrupted", node))

    def execution_success(self) -> None:
        self.told.append(("success",))

    @property
    def ran(self) -> list[str]:
        return [entry[1] for entry in self.told if entry[0] == "executing"]


class Number:
    RETURN_TYPES, FUNCTION = ("INT",), "give"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {"default": 0, "min": -100, "max": 100})}}

    def give(self, value: int) -> tuple[int]:
        return (value,)


class Add:
    RETURN_TYPES, FUNCTION = ("INT",), "add"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"a": ("INT", {"forceInput": True})}, "optional": {"b": ("INT", {"default": 1})}}

    def add(self, a: int, b: int = 10) -> tuple[int]:
        return (a + b,)


class Show:
    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "show", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT,STRING,LIST", {"forceInput": True})}}

    def show(self, value: Any) -> dict[str, Any]:
        return {"ui": {"text": [str(value)]}}


class Several:
    """A list of numbers, fanned out downstream."""

    RETURN_TYPES, FUNCTION, OUTPUT_IS_LIST = ("INT",), "give", (True,)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"first": ("INT", {}), "count": ("INT", {"min": 0})}}

    def give(self, first: int, count: int) -> tuple[list[int]]:
        return (list(range(first, first + count)),)


class Collect:
    """All items in one call."""

    RETURN_TYPES, FUNCTION, INPUT_IS_LIST = ("LIST",), "collect", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"items": ("INT", {"forceInput": True}), "word": ("STRING", {})}}

    def collect(self, items: list[int], word: list[str]) -> tuple[str]:
        return (f"{items}{word}",)


class Choose:
    """Evaluates only the branch it takes."""

    RETURN_TYPES, FUNCTION = ("INT",), "choose"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        lazy = ("INT", {"lazy": True, "forceInput": True})
        return {"required": {"first": ("BOOLEAN", {}), "a": lazy, "b": lazy}}

    def check_lazy_status(self, first: bool, a: int | None, b: int | None) -> list[str]:
        return ["a" if first else "b"]

    def choose(self, first: bool, a: int | None, b: int | None) -> tuple[int]:
        value = a if first else b
        assert value is not None
        return (value,)


class Block:
    RETURN_TYPES, FUNCTION = ("INT",), "block"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {"forceInput": True}), "message": ("STRING", {})}}

    def block(self, value: int, message: str) -> tuple[Any]:
        return (ExecutionBlocker(message or None) if value % 2 else value,)


class Fail:
    RETURN_TYPES, FUNCTION = ("INT",), "fail"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"message": ("STRING", {})}}

    def fail(self, message: str) -> tuple[int]:
        raise ValueError(message)


class Cancel:
    RETURN_TYPES, FUNCTION = ("INT",), "cancel"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def cancel(self) -> tuple[int]:
        raise Interrupted


class Expand:
    """value + 1 + 1 ... by `count` new Add nodes."""

    RETURN_TYPES, FUNCTION = ("INT",), "expand"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"value": ("INT", {"rawLink": True, "forceInput": True}), "count": ("INT", {})},
            "hidden": {"own_id": "UNIQUE_ID"},
        }

    def expand(self, value: Any, count: int, own_id: str) -> dict[str, Any]:
        graph, link = {}, value
        for index in range(count):
            graph[f"{own_id}.0.0.{index}"] = {"class_type": "Add", "inputs": {"a": link, "b": 1}}
            link = [f"{own_id}.0.0.{index}", 0]
        return {"result": (link,), "expand": graph}


class Wait:
    """Waits until `others` nodes of this class wait beside it, so it only ends when they run at the same time."""

    RETURN_TYPES, FUNCTION = ("INT",), "wait"
    waiting = 0

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {}), "together": ("INT", {})}}

    async def wait(self, value: int, together: int) -> tuple[int]:
        Wait.waiting += 1
        while Wait.waiting < together:
            await asyncio.sleep(0)
        node = running_node()
        assert node is not None
        node.report(1, 1)
        return (value,)


class Always:
    RETURN_TYPES, FUNCTION = ("INT",), "give"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"how": ("STRING", {})}}

    @classmethod
    def IS_CHANGED(cls, how: str) -> float:
        return 1 / 0 if how == "fails" else float("nan")

    def give(self, how: str) -> tuple[int]:
        return (1,)


class Hidden:
    """Shows what arrived in its hidden inputs."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("INT",), "show", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        kinds = {"own": "UNIQUE_ID", "prompt": "PROMPT", "graph": ("DYNPROMPT",), "info": "EXTRA_PNGINFO"}
        return {"required": {}, "hidden": kinds}

    def show(self, own: str, prompt: Any, graph: Any, info: Any) -> dict[str, Any]:
        return {"ui": {"seen": [own, list(prompt), graph.has_node(own), info]}, "result": (1,)}


class Counting:
    """How often this very object was called."""

    RETURN_TYPES, FUNCTION, NOT_IDEMPOTENT = ("INT",), "count", True

    def __init__(self) -> None:
        self.calls = 0

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {})}}

    def count(self, value: int) -> tuple[int]:
        self.calls += 1
        return (self.calls,)


class Widgets:
    """One of every kind of widget."""

    RETURN_TYPES, FUNCTION = ("INT",), "give"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "number": ("INT", {"forceInput": True}),
                "file": (["a.png", "b.png"], {"image_upload": True}),
                "seed": ("INT", {"default": 7, "max": 2**63}),
                "steps": ("INT", {"default": 20, "min": 1, "max": 50}),
                "prompt": ("STRING", {"dynamicPrompts": True, "default": "plain"}),
            },
            "optional": {
                "mode": ("COMBO", {"options": ["fast", "slow"], "control_after_generate": True}),
                "picked": ("COMBO", {"options": ["x", "y", "z"], "multi_select": {"chip": True}, "default": ["x"]}),
                "amount": ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0}),
                "curve": ("CURVE", {"default": [[0, 0], [1, 1]]}),
            },
        }

    def give(self, **inputs: Any) -> tuple[int]:
        return (1,)


NODES: dict[str, type] = {
    node.__name__: node
    for node in (
        Number, Add, Show, Several, Collect, Choose, Block, Fail, Cancel, Expand, Wait, Always, Hidden, Counting, Widgets,
    )
}  # fmt: skip


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}
