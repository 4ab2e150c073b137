"""What a person does on the canvas, and what they wait for."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page

Prompt = dict[str, dict[str, Any]]
WORKFLOWS = Path(__file__).parents[2] / "workflows"


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """A node of the API format; a link is [node id, slot]."""
    return {"class_type": class_type, "inputs": inputs}


def shipped(name: str) -> dict[str, Any]:
    """A workflow of the package."""
    workflow: dict[str, Any] = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    return workflow


def instantir(steps: int) -> dict[str, Any]:
    """The shipped workflow with fewer or more steps."""
    workflow = shipped("instantir")
    sampler = next(node for node in workflow["nodes"] if node["type"] == "KintsugiAdaResSampler")
    sampler["widgets_values"][2] = steps
    return workflow


def open_canvas(page: Page, url: str) -> None:
    """The page as it stands when a person can begin: a graph, and a button to run it."""
    page.goto(url)
    wait_for_canvas(page)


def wait_for_canvas(page: Page) -> None:
    page.wait_for_function("() => window.app?.vueAppReady && app.graph?.nodes.length && app.extensionManager")
    page.get_by_test_id("queue-button").wait_for()


def load_prompt(page: Page, prompt: Prompt) -> None:
    """Lay out a graph as a dropped API file would."""
    page.evaluate("prompt => app.loadApiJson(prompt, 'test')", prompt)
    page.wait_for_function("ids => ids.every(id => app.graph.getNodeById(id))", arg=list(prompt))


def load_workflow(page: Page, workflow: dict[str, Any]) -> None:
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    page.wait_for_function("count => app.graph.nodes.length === count", arg=len(workflow["nodes"]))


def run(page: Page) -> str:
    """Press Run; the id under which the server takes it."""
    with page.expect_response(lambda answer: answer.url.endswith("/prompt") and answer.request.method == "POST") as sent:
        page.get_by_test_id("queue-button").click()
    assert sent.value.ok, sent.value.text()
    return str(sent.value.json()["prompt_id"])


def output(page: Page, node_id: str, key: str = "images") -> list[Any]:
    """What a node shows, once it has been executed."""
    shown = page.wait_for_function("([id, key]) => app.nodeOutputs[id]?.[key]", arg=[node_id, key])
    return list(shown.json_value())


def look_at(page: Page, node_id: str) -> None:
    """Bring a node to the free part of the canvas at its own size."""
    page.evaluate(
        """id => {
            const [x, y] = app.graph.getNodeById(id).pos;
            app.canvas.ds.scale = 1;
            app.canvas.ds.offset = [120 - x, 140 - y];
            app.canvas.setDirty(true, true);
        }""",
        node_id,
    )


def job_status(page: Page, job: str) -> str:
    return str(page.evaluate("async job => (await (await fetch(`/api/jobs/${job}`)).json()).status", job))


def cancel_button(page: Page) -> Locator:
    return page.get_by_role("button", name="Cancel current run")


def seen(locator: Locator) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What an element looks like on the screen, [H, W, 3] in 0..1."""
    with Image.open(BytesIO(locator.screenshot())) as picture:
        return np.asarray(picture.convert("RGB")) / 255
