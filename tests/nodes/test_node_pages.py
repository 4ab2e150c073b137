"""The help page of a node: what it takes and gives, a picture, and a small graph whose sockets exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kintsugi.nodes.catalogue import NODE_CLASSES
from node_inputs import visible_inputs
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "web" / "docs"
LARGEST_PICTURE = 40_000  # bytes
NARROWEST, WIDEST = 200, 1000  # pixels: the panel shows some 400


@pytest.fixture(params=NODE_CLASSES, ids=lambda node: node.__name__)
def node(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def tools() -> dict[str, ModuleType]:
    """The modules of tools/make_help_pictures.py, which is a script beside the package."""
    names = ("graph_drawing", "help_graphs", "help_strips", "make_help_pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        return {name: importlib.import_module(name) for name in names}


def page(node: Any) -> str:
    return (PAGES / f"{node.__name__}.md").read_text(encoding="utf-8")


def rows(text: str, head: str) -> list[str]:
    """The names in the first column of a table, in its order."""
    table = re.search(rf"^\| {head} \| \|\n\|---\|---\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [] if table is None else re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in table[1].splitlines()))


def pictures(text: str) -> dict[str, str]:
    """Alternative text by file, relative to the pages' folder, as the help panel resolves it."""
    return {name: words for words, name in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text)}


def test_every_page_belongs_to_a_node() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {node.__name__ for node in NODE_CLASSES}


def test_a_page_begins_with_the_nodes_title(node: Any) -> None:
    title = page(node).splitlines()[0].removeprefix("# ")
    assert node.DISPLAY_NAME.startswith(title)


def test_a_page_tells_every_input_and_every_output_and_no_other(node: Any) -> None:
    assert rows(page(node), "input") == list(visible_inputs(node))
    assert rows(page(node), "output") == list(getattr(node, "RETURN_NAMES", ()))


def test_a_page_names_other_nodes_by_their_titles(node: Any) -> None:
    gone = re.findall(r"AdaRes Sampler|FluxIR Sampler|Color Fix\b", page(node))
    assert gone == []


def test_a_page_shows_what_the_node_does_and_where_it_stands(node: Any, tools: dict[str, ModuleType]) -> None:
    name, shown = node.__name__, pictures(page(node))
    wanted = [f"img/{name}.graph.png", *([f"img/{name}.jpg"] if name in tools["help_strips"].STRIPS else [])]
    assert sorted(shown) == sorted(wanted)
    assert all(len(words) > 10 for words in shown.values())
    assert "**In a graph:**" in page(node)


def test_the_pictures_of_a_page_are_there_small_and_readable(node: Any) -> None:
    for name in pictures(page(node)):
        assert (PAGES / name).stat().st_size <= LARGEST_PICTURE, name
        with Image.open(PAGES / name) as picture:
            assert NARROWEST <= picture.width <= WIDEST, name


def test_every_picture_is_on_a_page() -> None:
    shown = {name for node in NODE_CLASSES for name in pictures(page(node))}
    assert {path.relative_to(PAGES).as_posix() for path in (PAGES / "img").iterdir()} == shown


def test_every_socket_of_a_small_graph_exists_and_what_is_linked_fits(node: Any, tools: dict[str, ModuleType]) -> None:
    drawing, links = tools["graph_drawing"], tools["help_graphs"].GRAPHS[node.__name__]
    assert node.__name__ in {end for link in links for end in (link.source, link.target)}
    for link in links:
        assert drawing.output_types(link.source)[link.output] == drawing.input_types(link.target)[link.input], link


def test_a_drawn_node_shows_all_of_its_sockets(node: Any, tools: dict[str, ModuleType]) -> None:
    drawing, links = tools["graph_drawing"], tools["help_graphs"].GRAPHS[node.__name__]
    own = drawing.boxes_of(node.__name__, links)[node.__name__]
    kinds = drawing.input_types(node.__name__)
    assert set(own.inputs) >= {name for name, kind in kinds.items() if kind not in {*drawing.WIDGET_TYPES, "COMBO"}}
    assert own.outputs == list(getattr(node, "RETURN_NAMES", ()))


def test_sources_stand_left_of_what_they_feed(tools: dict[str, ModuleType]) -> None:
    for node_id, links in tools["help_graphs"].GRAPHS.items():
        boxes = tools["graph_drawing"].boxes_of(node_id, links)
        assert all(boxes[link.source].column < boxes[link.target].column for link in links), node_id


def test_a_graph_is_drawn_in_the_colours_of_its_links(tools: dict[str, ModuleType]) -> None:
    drawn = tools["graph_drawing"].draw_graph("KintsugiEncode", tools["help_graphs"].GRAPHS["KintsugiEncode"])
    colors = {color for _, color in drawn.convert("RGB").getcolors(drawn.width * drawn.height)}
    for wanted in ((0x64, 0xB5, 0xF6), (0xFF, 0x9C, 0xF9)):
        assert min(sum(abs(part - other) for part, other in zip(color, wanted, strict=True)) for color in colors) < 30


def test_a_strip_fits_the_page_and_is_small(tools: dict[str, ModuleType]) -> None:
    noisy = Image.effect_noise((256, 256), 90).convert("RGB")
    joined = tools["help_strips"].row([("one", noisy), ("a label that is much longer than its picture is wide, really", noisy)])
    assert joined.width <= WIDEST
    assert len(tools["make_help_pictures"].small_jpeg(joined)) <= LARGEST_PICTURE
