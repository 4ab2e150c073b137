"""Make the pictures of docs/canvas.md: what a person sees of `kintsugi serve`, from the templates dialog to a node's help.

    python tools/make_canvas_pictures.py [--browser /usr/bin/chromium]

Needs the extra `server` and a Chromium.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image
from served_canvas import ROOT, opened, served, small_jpeg, workflow_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

PICTURES = ROOT / "docs" / "canvas"
VIEW = {"width": 1440, "height": 900}
DRAWN = 1500  # milliseconds until the canvas has drawn a picture that arrived
# The node of degrade_and_score where the pair is compared, and what the help page is shown of.
COMPARE, EXPLAINED = "7", "KintsugiRestoreOneStep"
LOAD = "async workflow => { await app.loadGraphData(workflow); app.extensionManager.command.execute('Comfy.Canvas.FitView'); }"
LOOK_AT = """
([id, scale, left, top]) => {
    const [x, y] = app.graph.getNodeById(id).pos;
    app.canvas.ds.scale = scale;
    app.canvas.ds.offset = [left / scale - x, top / scale - y];
    app.canvas.setDirty(true, true);
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--browser", help="the Chromium to use; playwright's own when not given")
    arguments = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    with served() as url, opened(url, arguments.browser) as page:
        page.set_viewport_size(VIEW)
        for show in (show_templates, show_canvas, show_finished_run, show_slider, show_help):
            show(page)
            keep(page, show.__name__.removeprefix("show_"))


def keep(page: Page, name: str) -> None:
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(DRAWN)
    picture = Image.open(BytesIO(page.screenshot()))
    (PICTURES / f"{name}.jpg").write_bytes(small_jpeg(picture))


def show_templates(page: Page) -> None:
    """The dialog, at the templates of this pack."""
    page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_role("dialog").get_by_role("button", name="Kintsugi").click()
    page.get_by_test_id("template-workflow-compare_one_step").locator("img").first.wait_for()


def show_canvas(page: Page) -> None:
    """A template as it is opened."""
    page.get_by_role("dialog").get_by_placeholder("Search").fill("restore_photo")
    page.get_by_test_id("template-workflow-restore_photo").click()
    page.wait_for_function("count => app.graph.nodes.length === count", arg=len(workflow_of("restore_photo")["nodes"]))
    page.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView')")


def show_finished_run(page: Page) -> None:
    """Every result below its node."""
    page.evaluate(LOAD, workflow_of("degrade_and_score"))
    page.get_by_test_id("queue-button").click()
    page.wait_for_function("id => app.nodeOutputs[id]", arg=COMPARE)
    page.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView')")


def show_slider(page: Page) -> None:
    """The damaged half beside the restored one."""
    page.evaluate("id => app.graph.getNodeById(id).setSize([620, 720])", COMPARE)
    page.evaluate(LOOK_AT, [COMPARE, 1, 420, 90])
    page.locator(".kintsugi-split").fill("45")


def show_help(page: Page) -> None:
    """The page of a node beside the canvas."""
    page.evaluate(LOAD, workflow_of("restore_photo"))
    page.evaluate("type => app.canvas.selectNode(app.graph.nodes.find(node => node.type === type))", EXPLAINED)
    page.get_by_role("button", name="Node Info").click()
    page.get_by_role("heading", name="Restore Image (one step)").wait_for()


if __name__ == "__main__":
    main()
