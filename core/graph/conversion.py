"""From the editor's workflow to the prompt that is executed: what the ComfyUI frontend does when a person presses Run."""

from __future__ import annotations

from typing import Any

from ..errors import WorkflowError
from .documents import Document
from .links import LinkTracer, Literal, NodeOutput
from .registry import Definition, Registry
from .subgraphs import Scope, exported_nodes, open_scopes
from .texts import fill_prefixes
from .ui_format import UiNode, read_graph
from .widgets import sent_value, widget_values

Prompt = dict[str, dict[str, Any]]


def prompt_of(document: Document, registry: Registry) -> Prompt:
    """The prompt of a document: the one it carries, which is what made the picture, else its workflow converted."""
    if document.prompt is not None:
        return document.prompt
    assert document.workflow is not None, "read_workflow refuses a document without both"
    return to_prompt(document.workflow, registry)


def to_prompt(workflow: dict[str, Any], registry: Registry) -> Prompt:
    """UI format (version 0.4 or schema 1) to API format.

    Subgraphs are flattened (ids `outer:inner`), virtual, muted and bypassed nodes left out, `{a|b}` of dynamic prompts
    resolved to their first alternative, `%Node.widget%` of file prefixes filled. Nodes inside an instance that is muted
    or bypassed are left out as well. Raises WorkflowError for a file that is not in the format, for circles of virtual
    nodes, and for unknown node classes, all at once.
    """
    root, definitions = open_scopes(read_graph(workflow))
    exported = list(exported_nodes(root))
    _refuse_unknown(exported, registry)
    tracer = LinkTracer(registry, definitions)
    prompt = {scope.execution_id(node): _entry(scope, node, registry, tracer) for scope, node in exported}
    _drop_dangling_links(prompt)
    fill_prefixes(prompt, {scope.execution_id(node): _names(node, prompt[scope.execution_id(node)]) for scope, node in exported})
    return prompt


def _refuse_unknown(exported: list[tuple[Scope, UiNode]], registry: Registry) -> None:
    unknown: dict[str, list[str]] = {}
    for scope, node in exported:
        if node.type not in registry:
            unknown.setdefault(node.type, []).append(scope.execution_id(node))
    if unknown:
        listed = ", ".join(f"{kind} (node {', '.join(ids)})" for kind, ids in unknown.items())
        raise WorkflowError(
            f"The workflow has nodes of unknown classes: {listed}.",
            way_out="Replace, mute or bypass them, or run it in a ComfyUI that has their packs.",
        )


def _entry(scope: Scope, node: UiNode, registry: Registry, tracer: LinkTracer) -> dict[str, Any]:
    definition = registry.definition(node.type)
    inputs = _widget_inputs(scope, node, definition)
    for index, entry in enumerate(node.inputs):
        source = tracer.source(scope, node, index) if entry.link is not None else None
        if isinstance(source, NodeOutput):
            inputs[entry.name] = [source.node, source.slot]
        elif isinstance(source, Literal):
            inputs[entry.name] = sent_value(source.value, definition.inputs.get(entry.name))
    title = node.title or registry.display_name(node.type)
    return {"inputs": inputs, "class_type": node.type, "_meta": {"title": title}}


def _widget_inputs(scope: Scope, node: UiNode, definition: Definition) -> dict[str, Any]:
    values = widget_values(node, definition)
    values |= {name: scope.proxied[node.id, name] for name in values if (node.id, name) in scope.proxied}
    return {name: sent_value(value, definition.inputs[name]) for name, value in values.items()}


def _drop_dangling_links(prompt: Prompt) -> None:
    """A link to something that is not in the prompt goes; the node may then lack a required input, which validation says."""
    for node in prompt.values():
        node["inputs"] = {name: value for name, value in node["inputs"].items() if not isinstance(value, list) or value[0] in prompt}


def _names(node: UiNode, entry: dict[str, Any]) -> list[str]:
    search_name = node.properties.search_name
    return [entry["_meta"]["title"], *([search_name] if isinstance(search_name, str) else [])]
