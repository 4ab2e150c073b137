"""What a person reads about a node: title, category, tooltips and a page of help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kintsugi.nodes.catalogue import NODE_CLASSES

PAGES = Path(__file__).parents[2] / "web" / "docs"


@pytest.fixture(params=NODE_CLASSES, ids=lambda node: node.__name__)
def node(request: pytest.FixtureRequest) -> Any:
    return request.param


def inputs(node: Any) -> dict[str, Any]:
    sections = node.INPUT_TYPES()
    return {name: spec for section in ("required", "optional") for name, spec in sections.get(section, {}).items()}


def test_id_category_title_and_description_are_there(node: Any) -> None:
    assert node.__name__.startswith("Kintsugi")
    assert node.CATEGORY.startswith("image/restoration/")
    assert node.DISPLAY_NAME and node.DESCRIPTION and node.SEARCH_ALIASES


def test_every_input_has_a_tooltip_that_is_a_sentence(node: Any) -> None:
    for name, spec in inputs(node).items():
        assert spec[1]["tooltip"].rstrip().endswith((".", ")")), name


def test_every_output_has_a_name_and_a_tooltip(node: Any) -> None:
    assert len(getattr(node, "RETURN_NAMES", ())) == len(node.RETURN_TYPES) == len(node.OUTPUT_TOOLTIPS)
    assert all(node.OUTPUT_TOOLTIPS)


def test_every_node_has_a_page_that_tells_each_input_and_a_graph(node: Any) -> None:
    page = (PAGES / f"{node.__name__}.md").read_text(encoding="utf-8")
    assert page.startswith("# ")
    assert [name for name in inputs(node) if f"`{name}`" not in page] == []
    assert "**In a graph:**" in page


def test_every_page_belongs_to_a_node() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {node.__name__ for node in NODE_CLASSES}
