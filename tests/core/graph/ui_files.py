"""Writing workflow files in the editor's format, for tests."""

from __future__ import annotations

import copy
from typing import Any


def ui_node(node_id: Any, kind: str, inputs: list[Any] | None = None, outputs: tuple[str, ...] = ("INT",), **more: Any) -> dict[str, Any]:
    """inputs: (name, type, link id or None) or (name, type, link, widget name)."""
    entries = []
    for name, input_type, link, *widget in inputs or []:
        entries.append({"name": name, "type": input_type, "link": link} | ({"widget": {"name": widget[0]}} if widget else {}))
    shown = [{"name": output, "type": output, "links": None} for output in outputs]
    return {"id": node_id, "type": kind, "mode": 0, "inputs": entries, "outputs": shown, "properties": {}, **more}


def ui_link(link_id: int, origin: Any, origin_slot: int, target: Any, target_slot: int, kind: str = "INT") -> dict[str, Any]:
    return {"id": link_id, "origin_id": origin, "origin_slot": origin_slot, "target_id": target, "target_slot": target_slot, "type": kind}


def schema_1(nodes: list[Any], links: list[Any], subgraphs: list[Any] | None = None) -> dict[str, Any]:
    definitions = {"definitions": {"subgraphs": subgraphs}} if subgraphs else {}
    return {"version": 1, "state": {}, "nodes": nodes, "links": links, "reroutes": [], **definitions}


def version_04(workflow: dict[str, Any]) -> dict[str, Any]:
    """The same graph in the older spelling: links as arrays, sizes as objects, reroutes under `extra`."""
    old = copy.deepcopy(workflow)
    fields = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    old["links"] = [[link.get(field) for field in fields] for link in workflow["links"]]
    old["version"] = 0.4
    old.pop("state", None)
    old["extra"] = {"reroutes": old.pop("reroutes", []), "linkExtensions": []}
    return old


def subgraph(
    kind: str, nodes: list[Any], links: list[Any], inputs: list[tuple[str, str]], outputs: tuple[str, ...] = ("INT",)
) -> dict[str, Any]:
    return {
        "id": kind,
        "name": f"the {kind}",
        "inputNode": {"id": -10},
        "outputNode": {"id": -20},
        "inputs": [{"id": name, "name": name, "type": input_type} for name, input_type in inputs],
        "outputs": [{"id": output, "name": output, "type": output} for output in outputs],
        "nodes": nodes,
        "links": links,
    }
