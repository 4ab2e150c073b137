"""What the editor does to texts before it sends a prompt: dynamic prompts and names of other nodes' widgets in file prefixes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_CHOICE = re.compile(r"\{([^{}]*)\}")
_REFERENCE = re.compile(r"%([^%]+)\.([^%.]+)%")
_UNFIT_FOR_FILES = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')
_ESCAPED = {r"\{": "\x00", r"\}": "\x01", r"\|": "\x02"}

PREFIX_WIDGET = "filename_prefix"


def resolve_dynamic_prompt(text: str) -> str:
    """The text without // and /* */ comments and with every `{a|b}` replaced by its FIRST alternative, inner ones first.

    The editor chooses at random; here the same workflow must give the same prompt. `\\{`, `\\}` and `\\|` are plain.
    """
    text = _COMMENT.sub("", text)
    for escaped, stand_in in _ESCAPED.items():
        text = text.replace(escaped, stand_in)
    replaced = 1
    while replaced:
        text, replaced = _CHOICE.subn(lambda found: found.group(1).split("|")[0], text)
    for escaped, stand_in in _ESCAPED.items():
        text = text.replace(stand_in, escaped[1:])
    return text


def fill_prefixes(prompt: Mapping[str, Any], names: Mapping[str, Iterable[str]]) -> None:
    """Replaces `%Node.widget%` in every filename_prefix, in place.

    names: the names each node of the prompt answers to (title, search name). Dates, sizes and unknown names stay for
    the node that saves.
    """
    by_name: dict[str, str] = {}
    for node_id, own_names in names.items():
        for name in own_names:
            by_name.setdefault(name, node_id)

    def value(found: re.Match[str]) -> str:
        inputs = prompt[by_name[found.group(1)]]["inputs"] if found.group(1) in by_name else {}
        content = inputs.get(found.group(2))
        if content is None or isinstance(content, (list, dict)):
            return found.group(0)
        return _UNFIT_FOR_FILES.sub("_", str(content))

    for node in prompt.values():
        prefix = node["inputs"].get(PREFIX_WIDGET)
        if isinstance(prefix, str):
            node["inputs"][PREFIX_WIDGET] = _REFERENCE.sub(value, prefix)
