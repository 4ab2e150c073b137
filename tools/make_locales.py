"""Write locales/en from the node classes, and say what the other languages miss.

    python tools/make_locales.py

The other languages are written by hand, in the same form. A key is stale in them when its English text has changed since the last
run, or when no node has it any more. Exit code 1 when a key is missing or stale.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kintsugi.nodes.catalogue import NODE_CLASSES

LOCALES = Path(__file__).parent.parent / "locales"
# What ComfyUI itself translates.
THEIR_CATEGORIES = {"image", "latent"}


def english() -> dict[str, Any]:
    """By file name, the words of every node as ComfyUI's frontend looks them up."""
    categories = dict.fromkeys(part for node in NODE_CLASSES for part in node.CATEGORY.split("/") if part not in THEIR_CATEGORIES)
    return {
        "main.json": {"nodeCategories": {category: category for category in categories}},
        "nodeDefs.json": {node.__name__: words(node) for node in NODE_CLASSES},
    }


def words(node: Any) -> dict[str, Any]:
    sections = node.INPUT_TYPES()
    inputs = {name: spec[1] for section in ("required", "optional") for name, spec in sections.get(section, {}).items()}
    outputs = zip(getattr(node, "RETURN_NAMES", ()), node.OUTPUT_TOOLTIPS, strict=True)
    told = {
        "display_name": node.DISPLAY_NAME,
        "description": node.DESCRIPTION,
        "inputs": {name: {"name": options.get("display_name", name), "tooltip": options["tooltip"]} for name, options in inputs.items()},
        "outputs": {str(index): {"name": name, "tooltip": tooltip} for index, (name, tooltip) in enumerate(outputs)},
    }
    return {key: value for key, value in told.items() if value}


def texts(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """Every text of nested mappings by its path."""
    found: dict[tuple[str, ...], str] = {}
    for key, value in tree.items():
        found |= texts(value, (*path, key)) if isinstance(value, Mapping) else {(*path, key): value}
    return found


def read(language: str) -> dict[str, Any]:
    """The files of a language by name; one that is not there holds nothing."""
    paths = {name: LOCALES / language / name for name in ("main.json", "nodeDefs.json")}
    return {name: json.loads(path.read_text(encoding="utf-8")) if path.exists() else {} for name, path in paths.items()}


def write(language: str, files: Mapping[str, Any]) -> None:
    for name, content in files.items():
        path = LOCALES / language / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    before, now = texts(read("en")), texts(english())
    write("en", english())
    changed = {path for path, text in now.items() if before.get(path, text) != text}
    complete = True
    for language in sorted(folder.name for folder in LOCALES.iterdir() if folder.name != "en"):
        there = texts(read(language)).keys()
        lines = [f"missing: {'.'.join(path)}" for path in now if path not in there]
        lines += [f"stale: {'.'.join(path)}" for path in there if path not in now or path in changed]
        sys.stdout.write("\n  ".join([f"{language}: {len(lines)} to do", *lines]) + "\n")
        complete = complete and not lines
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
