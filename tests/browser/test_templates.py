"""Every workflow that is shipped opens from the templates dialog and becomes the prompt that the command line runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from canvas import open_canvas
from kintsugi.core.graph.conversion import to_prompt
from kintsugi.headless.node_registry import full_registry
from playwright.sync_api import BrowserContext, Page
from watched_pages import Served, watched

WORKFLOWS = sorted((Path(__file__).parents[2] / "workflows").glob("*.json"))


@pytest.fixture(scope="module")
def canvas(context: BrowserContext, served: Served) -> Iterator[Page]:
    """One page for all templates, as a person who looks through them has it."""
    with watched(context, served) as opened:
        open_canvas(opened, served.url)
        yield opened


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])
def test_a_template_opens_and_gives_the_prompt_of_the_command_line(canvas: Page, path: Path) -> None:
    workflow = json.loads(path.read_text(encoding="utf-8"))
    canvas.evaluate("() => { app.graph.clear(); app.extensionManager.command.execute('Comfy.BrowseTemplates'); }")
    # The dialog draws what is on the screen alone; a search brings every card there.
    canvas.get_by_role("dialog").get_by_placeholder("Search").fill(path.stem)
    card = canvas.get_by_test_id(f"template-workflow-{path.stem}")
    thumbnail = card.locator("img").first
    canvas.wait_for_function("picture => picture.complete && picture.naturalWidth > 0", arg=thumbnail.element_handle())
    card.click()
    canvas.wait_for_function("count => app.graph.nodes.length === count", arg=len(workflow["nodes"]))
    assert (
        canvas.evaluate("() => app.graph.nodes.filter(node => !(node.type in LiteGraph.registered_node_types)).map(node => node.type)")
        == []
    )
    sent = canvas.evaluate("async () => (await app.graphToPrompt()).output")
    expected = to_prompt(workflow, full_registry())
    assert {key: (entry["class_type"], entry["inputs"]) for key, entry in sent.items()} == {
        key: (entry["class_type"], entry["inputs"]) for key, entry in expected.items()
    }
