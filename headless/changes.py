"""What the command line changes in a prompt before it runs: picture files, widgets, the seed, the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..core.errors import BadValueError, FileAccessError
from ..core.folders import Folders
from ..core.graph.registry import InputDefinition, Registry
from ..core.graph.widgets import has_widget

Prompt = dict[str, dict[str, Any]]

EMBEDDED = "embedded"
SEEDS = ("seed", "noise_seed")
UPLOAD = "image_upload"
_SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Changes:
    """sets: `NODE.input=value`. values: for every widget of that name, wherever it is (restore's --scale and --seed).

    file_format: for every saving node that offers it. embedded: for every choice of weights that offers them.
    """

    sets: tuple[str, ...] = ()
    values: Mapping[str, float] = field(default_factory=dict)
    file_format: str | None = None
    embedded: bool = False


def changed(prompt: Prompt, registry: Registry, changes: Changes) -> Prompt:
    """A copy of the prompt with the changes. Raises BadValueError naming what is unknown and what there is."""
    prompt = deepcopy(prompt)
    for name, value in changes.values.items():
        _set_everywhere(prompt, registry, name, value)
    if changes.file_format:
        _choose(prompt, registry, "format", changes.file_format)
    if changes.embedded:
        _choose(prompt, registry, "weights", EMBEDDED)
    for assignment in changes.sets:
        _set_one(prompt, registry, assignment)
    return prompt


def title_of(prompt: Prompt, node: str) -> str:
    """The node's title, else its class."""
    return str(prompt[node].get("_meta", {}).get("title") or prompt[node]["class_type"])


def find_node(prompt: Prompt, name: str, option: str) -> str:
    """Id of the node with that id, else that title; BadValueError listing the nodes when there is none or several."""
    if name in prompt:
        return name
    titled = [node for node in prompt if title_of(prompt, node) == name]
    if len(titled) == 1:
        return titled[0]
    fault = f"{len(titled)} nodes are titled {name!r}" if titled else f"no node has the id or title {name!r}"
    listed = "; ".join(f"{node} {title_of(prompt, node)!r}" for node in titled or prompt)
    raise BadValueError(f"{fault}.", where=option, way_out=f"Nodes: {listed}.")


def widgets(prompt: Prompt, registry: Registry, node: str) -> dict[str, InputDefinition]:
    """The node's inputs that hold a value of their own, by name; none for a class we do not have."""
    class_type = prompt[node]["class_type"]
    if class_type not in registry:
        return {}
    return {name: entry for name, entry in registry.definition(class_type).inputs.items() if has_widget(entry)}


def _is_link(value: object) -> bool:
    return isinstance(value, list)


def _set_one(prompt: Prompt, registry: Registry, assignment: str) -> None:
    target, equals, text = assignment.partition("=")
    name, dot, input_name = target.rpartition(".")
    where = f"--set {assignment}"
    if not equals or not dot:
        raise BadValueError("is not of the form NODE.input=value.", where=where, way_out="For example: --set 4.steps=20")
    node = find_node(prompt, name, where)
    known = widgets(prompt, registry, node)
    if input_name not in known:
        listed = ", ".join(known) or "no widgets"
        raise BadValueError(f"{title_of(prompt, node)!r} has no widget {input_name!r}.", where=where, way_out=f"It has: {listed}.")
    old = prompt[node]["inputs"].get(input_name)
    if _is_link(old):
        raise BadValueError(
            f"{input_name!r} of {title_of(prompt, node)!r} is connected to node {old[0]}.",
            where=where,
            way_out="Change that node, or cut the connection in the workflow.",
        )
    prompt[node]["inputs"][input_name] = parsed(text, known[input_name], where)


def parsed(text: str, entry: InputDefinition, where: str) -> Any:
    """The text as a value of the widget's type; its range, and whether a file is there, are for the validation to check."""
    if entry.choices is not None and not entry.options.get(UPLOAD):
        found = [option for option in entry.choices if str(option) == text]
        if not found:
            listed = ", ".join(map(str, entry.choices)) or "nothing"
            raise BadValueError(f"{text!r} is not a choice of {entry.name!r}.", where=where, way_out=f"It offers: {listed}.")
        return found[0]
    parse = _PARSERS.get(entry.type)
    if parse is None:
        return text
    try:
        return parse(text)
    except (ValueError, KeyError) as error:
        raise BadValueError(f"{text!r} is no {entry.type}.", where=where, way_out=f"Give {entry.name!r} a value of that type.") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


_PARSERS: dict[str, Callable[[str], Any]] = {"INT": int, "FLOAT": _finite, "BOOLEAN": lambda text: _SWITCH[text.lower()]}


def _set_everywhere(prompt: Prompt, registry: Registry, name: str, value: float) -> None:
    names = SEEDS if name == "seed" else (name,)
    places = [(node, entry) for node, entry in _all_widgets(prompt, registry) if entry.name in names]
    if not places:
        raise BadValueError(f"no node of this workflow has a widget {name!r}.", where=f"--{name}", way_out="Leave it out.")
    for node, entry in places:
        prompt[node]["inputs"][entry.name] = parsed(str(value) if entry.type == "FLOAT" else _whole(value, name), entry, f"--{name}")


def _whole(value: float, name: str) -> str:
    if value != int(value):
        raise BadValueError(f"{value:g} is not a whole number.", where=f"--{name}", way_out="This workflow takes whole numbers there.")
    return str(int(value))


def _choose(prompt: Prompt, registry: Registry, name: str, option: str) -> None:
    """The option in every combo of that name that has it."""
    for node, entry in _all_widgets(prompt, registry):
        if entry.name == name and option in (entry.choices or ()):
            prompt[node]["inputs"][name] = option


def _all_widgets(prompt: Prompt, registry: Registry) -> Iterable[tuple[str, InputDefinition]]:
    """(node, widget) for every widget whose value is its own, that is, not connected."""
    for node in prompt:
        for name, entry in widgets(prompt, registry, node).items():
            if not _is_link(prompt[node]["inputs"].get(name)):
                yield node, entry


def picture_inputs(prompt: Prompt, registry: Registry) -> dict[str, str]:
    """{node: input} of the nodes that load a picture file: those whose widget takes an upload."""
    return {node: entry.name for node, entry in _all_widgets(prompt, registry) if entry.options.get(UPLOAD)}


def assigned_files(prompt: Prompt, registry: Registry, given: Iterable[str]) -> dict[str, Path]:
    """{node: path} of `--input` texts: `NODE=path`, or a bare path where a single node loads pictures."""
    loaders = picture_inputs(prompt, registry)
    files: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            files[only_loader(prompt, loaders)] = Path(text)
            continue
        files[chosen_loader(prompt, loaders, name)] = Path(path)
    return files


def only_loader(prompt: Prompt, loaders: Mapping[str, str]) -> str:
    """The single node that loads a picture; BadValueError when there is none or there are several."""
    if len(loaders) == 1:
        return next(iter(loaders))
    if not loaders:
        raise BadValueError("this workflow loads no picture.", where="--input", way_out="Use one with a Load Photo or Load Image node.")
    listed = "; ".join(f"{node} {title_of(prompt, node)!r}" for node in loaders)
    raise BadValueError(
        "this workflow loads several pictures.", where="--input", way_out=f"Say which: --input NODE=path, NODE one of {listed}."
    )


def chosen_loader(prompt: Prompt, loaders: Mapping[str, str], name: str) -> str:
    """The loading node of that id or title; without a name the only one. BadValueError when there is no such one."""
    if not name:
        return only_loader(prompt, loaders)
    node = find_node(prompt, name, f"--input {name}")
    if node not in loaders:
        listed = "; ".join(f"{loader} {title_of(prompt, loader)!r}" for loader in loaders) or "none"
        raise BadValueError(f"{title_of(prompt, node)!r} loads no picture.", where=f"--input {name}", way_out=f"Nodes that do: {listed}.")
    return node


def with_files(prompt: Prompt, registry: Registry, folders: Folders, files: Mapping[str, Path]) -> tuple[Prompt, Folders]:
    """The prompt loading those files, and folders that grant them: a prompt holds names, never a person's paths."""
    prompt, granted = deepcopy(prompt), dict(folders.granted)
    loaders = picture_inputs(prompt, registry)
    for node, path in files.items():
        if not path.is_file():
            raise FileAccessError("no such file.", where=str(path), way_out="Check the path of the picture.")
        name = _free_name(path, granted)
        granted[name] = path.resolve()
        prompt[node]["inputs"][loaders[node]] = name
    return prompt, replace(folders, granted=granted)


def _free_name(path: Path, granted: Mapping[str, Path]) -> str:
    """The name that the file is granted under, else its own, numbered when another file has that."""
    names = [path.name, *(f"{path.stem} ({number}){path.suffix}" for number in range(1, len(granted) + 1))]
    already = next((name for name, file in granted.items() if file == path.resolve()), None)
    return already or next(name for name in names if name not in granted)


def seeds_of(prompt: Prompt) -> dict[str, int]:
    """{node: seed} of every literal seed in the prompt."""
    return {
        node: value for node, entry in prompt.items() for name, value in entry["inputs"].items() if name in SEEDS and isinstance(value, int)
    }
