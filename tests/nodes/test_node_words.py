"""What a person reads about a node on the canvas: title, category, what else it is found by, and a tooltip at every place."""

from __future__ import annotations

from typing import Any

import pytest
from kintsugi.nodes.catalogue import NODE_CLASSES
from node_inputs import visible_inputs

# A title says what the node does, so it begins with one of these.
VERBS = {
    "Caption", "Compare", "Crop", "Decode", "Degrade", "Draw", "Encode", "Fix", "Lay", "Load", "Measure", "Paste", "Perceive",
    "Pre-Restore", "Preview", "Restore", "Sample", "Save", "Select",
}  # fmt: skip
SIMPLE_ENOUGH = 13  # widgets that a node shows at once


@pytest.fixture(params=NODE_CLASSES, ids=lambda node: node.__name__)
def node(request: pytest.FixtureRequest) -> Any:
    return request.param


def is_sentence(text: str) -> bool:
    return text[0].isprintable() and text.rstrip().endswith((".", ")"))


def test_id_category_and_description_are_there(node: Any) -> None:
    assert node.__name__.startswith("Kintsugi")
    assert node.CATEGORY.startswith("image/restoration/")
    assert is_sentence(node.DESCRIPTION)


def test_the_title_begins_with_what_the_node_does_and_is_no_other_node_s(node: Any) -> None:
    assert node.DISPLAY_NAME.split()[0] in VERBS
    assert [other for other in NODE_CLASSES if other.DISPLAY_NAME == node.DISPLAY_NAME] == [node]


def test_a_node_is_found_by_two_or_more_other_words(node: Any) -> None:
    words = [alias.lower() for alias in node.SEARCH_ALIASES]
    assert len(words) >= 2
    assert len(set(words)) == len(words)
    assert node.DISPLAY_NAME.lower() not in words


def test_every_input_has_a_tooltip_that_is_a_sentence(node: Any) -> None:
    assert [name for name, spec in visible_inputs(node).items() if not is_sentence(spec[1]["tooltip"])] == []


def test_every_output_has_a_name_and_a_tooltip_that_is_a_sentence(node: Any) -> None:
    assert len(getattr(node, "RETURN_NAMES", ())) == len(node.RETURN_TYPES) == len(node.OUTPUT_TOOLTIPS)
    assert [text for text in node.OUTPUT_TOOLTIPS if not is_sentence(text)] == []


def test_what_is_rarely_needed_is_collapsed(node: Any) -> None:
    widgets = {name: spec[1] for name, spec in visible_inputs(node).items() if "default" in spec[1]}
    shown = [name for name, options in widgets.items() if not options.get("advanced")]
    assert len(shown) <= SIMPLE_ENOUGH
    assert not {"dtype", "offload", "quantization", "base", "posterior", "overlap", "overrides"} & set(shown)


def test_only_a_widget_is_collapsed(node: Any) -> None:
    assert [name for name, spec in visible_inputs(node).items() if spec[1].get("advanced") and "default" not in spec[1]] == []
