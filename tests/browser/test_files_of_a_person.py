"""What a person brings to the page and what they keep: an uploaded photo, a saved workflow."""

from __future__ import annotations

import base64
import json

from canvas import load_prompt, node, open_canvas, output, run
from playwright.sync_api import Page, expect
from watched_pages import Served

LOAD_AND_SHOW = {"1": node("LoadImage", image="example.png"), "9": node("PreviewImage", images=["1", 0])}
DROP = """async ([content, name]) => {
    const node = app.graph.getNodeById(1);
    const [x, y] = app.canvas.convertOffsetToCanvas([node.pos[0] + 40, node.pos[1] + 40]);
    const canvas = app.canvas.canvas;
    const bounds = canvas.getBoundingClientRect();
    const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], name, { type: 'image/png' }));
    const place = { clientX: bounds.left + x, clientY: bounds.top + y, dataTransfer, bubbles: true, cancelable: true };
    for (const kind of ['dragenter', 'dragover', 'drop']) canvas.dispatchEvent(new DragEvent(kind, place));
}"""


def test_a_photo_dropped_on_a_node_is_uploaded_and_used(page: Page, served: Served) -> None:
    content = (served.base / "input" / "example.png").read_bytes()
    open_canvas(page, served.url)
    load_prompt(page, LOAD_AND_SHOW)
    page.evaluate(DROP, [base64.b64encode(content).decode(), "my holiday.png"])
    page.wait_for_function("() => app.graph.getNodeById(1).widgets[0].value === 'my holiday.png'")
    assert (served.base / "input" / "my holiday.png").read_bytes() == content
    run(page)
    assert output(page, "9")


def test_a_workflow_is_saved_and_opened_again(page: Page, served: Served) -> None:
    open_canvas(page, served.url)
    load_prompt(page, LOAD_AND_SHOW)
    page.evaluate("() => { app.graph.getNodeById(9).title = 'Before anything is done'; }")
    page.evaluate("() => { app.extensionManager.command.execute('Comfy.SaveWorkflow'); }")
    name = page.get_by_role("dialog").get_by_role("textbox")
    name.fill("my restoration")
    name.press("Enter")
    page.wait_for_function("() => app.extensionManager.workflow.activeWorkflow.path === 'workflows/my restoration.json'")
    saved = next(served.base.rglob("my restoration.json"))
    assert {entry["title"] for entry in json.loads(saved.read_text(encoding="utf-8"))["nodes"] if "title" in entry} >= {
        "Before anything is done"
    }
    page.evaluate("() => localStorage.clear()")
    open_canvas(page, served.url)
    page.evaluate("() => app.extensionManager.command.execute('Workspace.ToggleSidebarTab.workflows')")
    page.get_by_text("my restoration", exact=False).first.click()
    page.wait_for_function("() => app.graph.getNodeById(9)?.title === 'Before anything is done'")
    expect(page.get_by_role("button", name="my restoration").or_(page.get_by_text("my restoration")).first).to_be_visible()
