"""The words of the nodes in other languages: all of them there, and telling of the same numbers and choices as the English ones."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kintsugi.nodes.catalogue import NODE_CLASSES

ROOT = Path(__file__).parents[2]
TRANSLATED = ("de", "ja", "zh")
# What must stand in a translation as it stands in English: numbers, %names%, `code` and names with an underscore or a colon.
KEPT = re.compile(r"%[\w:-]+%|`[^`]+`|\b\w+_\w+\b|\b\w+:[A-Z]{2,}\b|\d+(?:[.:]\d+)*")

Texts = dict[tuple[str, ...], str]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """tools/make_locales.py, which is a script beside the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        return importlib.import_module("make_locales")


@pytest.fixture(scope="module")
def english(tool: ModuleType) -> Texts:
    return tool.texts(tool.english())


@pytest.fixture(params=TRANSLATED)
def translated(tool: ModuleType, request: pytest.FixtureRequest) -> Texts:
    return tool.texts(tool.read(request.param))


def choices(node: Any) -> set[str]:
    """Every option of the node's combos."""
    sections = node.INPUT_TYPES()
    specs = [spec for section in ("required", "optional") for spec in sections.get(section, {}).values()]
    return {option for spec in specs if isinstance(spec[0], list) for option in spec[0]}


CHOICES = {node.__name__: choices(node) for node in NODE_CLASSES}


def named_choices(node_id: str, text: str) -> set[str]:
    """The options that a text explains, as in `lab: ...`, or gives in brackets."""
    return {option for option in CHOICES[node_id] if re.search(rf"(?<![\w-]){re.escape(option)}: |\({re.escape(option)}\)", text)}


def kept(path: tuple[str, ...], text: str) -> set[str]:
    """What a translation of the text must hold, too."""
    words = set() if path[-1] == "name" else set(KEPT.findall(text))
    return words | (named_choices(path[1], text) if path[0] == "nodeDefs.json" else set())


def test_the_english_words_are_those_of_the_nodes(tool: ModuleType) -> None:
    assert tool.read("en") == tool.english(), "run tools/make_locales.py"


def test_there_are_no_other_languages_and_files() -> None:
    found = {path.relative_to(ROOT / "locales").as_posix() for path in (ROOT / "locales").rglob("*") if path.is_file()}
    assert found == {f"{language}/{name}" for language in ("en", *TRANSLATED) for name in ("main.json", "nodeDefs.json")}


def test_a_language_has_exactly_the_keys_of_english(translated: Texts, english: Texts) -> None:
    assert list(translated) == list(english)


def test_a_translation_keeps_numbers_names_and_choices(translated: Texts, english: Texts) -> None:
    lost = [(".".join(path), word) for path, text in english.items() for word in kept(path, text) if word not in translated[path]]
    assert lost == []


def test_every_sentence_is_translated(translated: Texts, english: Texts) -> None:
    sentences = {path: text for path, text in english.items() if path[-1] in ("tooltip", "description", "display_name")}
    assert [".".join(path) for path, text in sentences.items() if translated[path].strip() in ("", text)] == []


def test_no_two_nodes_have_one_title(translated: Texts) -> None:
    titles = [text for path, text in translated.items() if path[-1] == "display_name"]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("language", ["en", *TRANSLATED])
def test_no_text_holds_what_the_front_end_takes_for_its_own_syntax(tool: ModuleType, language: str) -> None:
    # Older front ends read {name}, @:key and one|many in tooltips as instructions; newer ones show an escape as it is written.
    assert [path for path, text in tool.texts(tool.read(language)).items() if re.search(r"[{}@|]", text)] == []


def test_a_changed_and_a_dropped_text_are_reported(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(tool, "LOCALES", tmp_path / "locales")
    words = tool.english()
    tool.write("de", words)
    assert tool.main() == 0
    words["nodeDefs.json"]["KintsugiLoadPhoto"]["description"] = "Read a file."
    words["nodeDefs.json"]["KintsugiLoadPhoto"]["inputs"]["gone"] = {"tooltip": "Was an input."}
    tool.write("en", words)
    tool.write("de", {**words, "main.json": {}})
    assert tool.main() == 1
    report = capsys.readouterr().out
    assert "stale: nodeDefs.json.KintsugiLoadPhoto.description" in report
    assert "stale: nodeDefs.json.KintsugiLoadPhoto.inputs.gone.tooltip" in report
    assert "missing: main.json.nodeCategories.files" in report
