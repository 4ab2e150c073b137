"""Make docs/workflows.md and its screenshots: the graph of every workflow as the canvas of `kintsugi serve` shows it.

    python tools/make_screenshots.py [--browser /usr/bin/chromium] [NAME ...]

Needs the extra `server` and a Chromium; without NAME all workflows are taken. The page is put together from the notes in the
workflows, so only the pictures need the browser: --page-only leaves them as they are.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image
from served_canvas import ROOT, opened, served, small_jpeg, workflow_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

PICTURES, PAGE = ROOT / "docs" / "workflows", ROOT / "docs" / "workflows.md"
EDGE = 40  # canvas around the outermost group
BARS = 400  # around that, so that the editor's bars and panels lie outside the picture
NOTE, FILES_HEADING = "MarkdownNote", "### Files needed"
ORDER = (
    "restore_photo", "restore_faces", "degrade_and_score", "compare_one_step", "tsd_sr", "gendr", "instarevive_photo",
    "instarevive_face", "instarevive_cartoon", "instantir", "instantir_creative", "instantir_previews", "fluxir", "fluxgen_dataset",
)  # fmt: skip
INTRODUCTION = """# The workflows that ship

Each opens from the Templates dialog of ComfyUI and of `kintsugi serve`, under the name of the pack, and runs headless with
`kintsugi run NAME`. The groups are the parts of the paper's pipeline. Weights `auto` takes the published files where they are, and
small ones of the pack otherwise, so that each runs at once.
"""
SHOW = """
async ([workflow, left, top]) => {
    await window.app.loadGraphData(workflow)
    window.app.canvas.background_image = ""
    window.app.canvas.ds.scale = 1
    window.app.canvas.ds.offset = [left, top]
    window.app.canvas.setDirty(true, true)
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="workflows to take; all when none is named")
    parser.add_argument("--browser", help="the Chromium to use; playwright's own when not given")
    parser.add_argument("--page-only", action="store_true", help="write docs/workflows.md alone")
    arguments = parser.parse_args()
    if not arguments.page_only:
        PICTURES.mkdir(exist_ok=True)
        with served() as url, opened(url, arguments.browser) as page:
            for name in arguments.names or ORDER:
                (PICTURES / f"{name}.jpg").write_bytes(small_jpeg(screenshot(page, workflow_of(name))))
    PAGE.write_text(page_text(), encoding="utf-8")


def screenshot(page: Page, workflow: dict[str, Any]) -> Image.Image:
    """The whole graph at its own size, without the editor's bars and without the note, whose text is on the page."""
    workflow = {**workflow, "nodes": [node for node in workflow["nodes"] if node["type"] != NOTE]}
    left, top, right, bottom = bounds(workflow)
    width, height = round(right - left), round(bottom - top)
    page.set_viewport_size({"width": width + 2 * BARS, "height": height + 2 * BARS})
    page.evaluate(SHOW, [workflow, BARS - left, BARS - top])
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)  # the canvas draws pictures a moment after they arrived
    return Image.open(BytesIO(page.screenshot(clip={"x": BARS, "y": BARS, "width": width, "height": height})))


def bounds(workflow: dict[str, Any]) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the groups, which hold every node, with an edge around them."""
    boxes = [group["bounding"] for group in workflow["groups"]]
    left, top = (min(box[axis] for box in boxes) - EDGE for axis in (0, 1))
    right, bottom = (max(box[axis] + box[axis + 2] for box in boxes) + EDGE for axis in (0, 1))
    return left, top, right, bottom


def page_text() -> str:
    return INTRODUCTION + "".join(section(name) for name in ORDER)


def section(name: str) -> str:
    """A workflow's title, what it does, its picture, and the files it needs, all but the picture from its note."""
    note = next(node["widgets_values"][0] for node in workflow_of(name)["nodes"] if node["type"] == NOTE)
    title = note.splitlines()[0].removeprefix("## ")
    files = note.split(FILES_HEADING, 1)[1].strip()
    return f"\n## {name}\n\n{title}.\n\n![The graph of {name}](workflows/{name}.jpg)\n\n{files}\n"


if __name__ == "__main__":
    main()
