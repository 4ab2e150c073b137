"""What the pack draws below its nodes: the slider, the chart and the strip of previews."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from canvas import instantir, load_prompt, load_workflow, look_at, node, open_canvas, output, run, seen
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect
from watched_pages import Served, watched

SAMPLER, STEPS = "10", 5
# Two pairs, the same photo twice and the photo beside its negative, and what the pack measures of both.
PAIRS = {
    "1": node("LoadImage", image="example.png"),
    "2": node("ImageInvert", image=["1", 0]),
    "3": node("ImageBatch", image1=["1", 0], image2=["2", 0]),
    "4": node("KintsugiCompare", before=["1", 0], after=["3", 0], filename_prefix="pairs"),
    "5": node("KintsugiMeasureQuality", image=["3", 0], reference=["1", 0], metrics="psnr, ssim"),
    "6": node("KintsugiSelectByQuality", image=["3", 0], metrics="colorfulness, noise", keep=100.0),
    "7": node("PreviewImage", images=["6", 0]),
}


@pytest.fixture(scope="module")
def canvas(context: BrowserContext, served: Served) -> Iterator[Page]:
    """One page on which PAIRS has run, for all that looks at results."""
    with watched(context, served) as opened:
        open_canvas(opened, served.url)
        load_prompt(opened, PAIRS)
        run(opened)
        output(opened, "7")
        look_at(opened, "4")
        yield opened


@pytest.fixture(params=[False, True], ids=["drawn_on_the_canvas", "drawn_by_the_page"])
def nodes(request: pytest.FixtureRequest, canvas: Page) -> Iterator[Page]:
    """The front end draws nodes in one of two ways, as its setting says."""
    use = "drawn_by_page => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', drawn_by_page)"
    canvas.evaluate(use, request.param)
    look_at(canvas, "4")
    yield canvas
    canvas.evaluate(use, False)


def test_the_slider_shows_both_pictures_and_follows_pointer_and_keys(nodes: Page, served: Served) -> None:
    split, count = nodes.locator(".kintsugi-split"), nodes.locator(".kintsugi-count")
    if count.text_content() == "1 / 2":
        nodes.get_by_role("button", name="Next pair").click()
    expect(count).to_have_text("2 / 2")
    box = split.bounding_box()
    assert box is not None
    nodes.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.3)
    nodes.mouse.down()
    nodes.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.4)
    nodes.mouse.up()
    assert float(split.input_value()) == pytest.approx(30, abs=1)
    assert halves_differ_from_the_photo(nodes, served) == pytest.approx([0, 1], abs=0.08)
    nodes.keyboard.press("End")
    assert float(split.input_value()) == 100
    nodes.keyboard.press("ArrowLeft")
    assert float(split.input_value()) == pytest.approx(99)
    assert nodes.evaluate("() => app.graph.getNodeById('4').imgs ?? null") is None, "the pair is not shown a second time"


def halves_differ_from_the_photo(page: Page, served: Served) -> list[float]:
    """For the left and the right fifth of the stage: 0 where it is the photo, 1 where it is its negative."""
    screen = seen(page.locator(".kintsugi-stage"))
    height, width = screen.shape[:2]
    with Image.open(served.base / "input" / "example.png") as photo:
        expected = np.asarray(photo.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)) / 255
    upper, fifth = slice(height // 10, height * 7 // 10), width // 5
    shares = []
    for columns in (slice(0, fifth), slice(width - fifth, width)):
        own, photo_part = screen[upper, columns], expected[upper, columns]
        contrast = 1 - 2 * photo_part
        shares.append(float(((own - photo_part) * contrast).sum() / (contrast**2).sum()))
    return shares


def test_the_slider_keeps_its_shape_and_stores_nothing(canvas: Page) -> None:
    canvas.evaluate("() => { app.graph.getNodeById('4').setSize([560, 420]); app.canvas.setDirty(true, true); }")
    canvas.wait_for_function("() => document.querySelector('.kintsugi-frame').getBoundingClientRect().width > 500")
    box = canvas.locator(".kintsugi-stage").bounding_box()
    assert box is not None and box["width"] == pytest.approx(box["height"], abs=1), "the photo is a square"
    saved, sent = canvas.evaluate(
        """async () => [
            app.graph.serialize().nodes.find(node => node.id == 4).widgets_values, (await app.graphToPrompt()).output['4'].inputs,
        ]"""
    )
    assert saved == ["pairs"] and sent == PAIRS["4"]["inputs"]


def test_the_chart_has_a_bar_for_each_picture_and_measure(canvas: Page) -> None:
    chart = canvas.locator(".kintsugi-chart").filter(has_text="psnr")
    expect(chart.locator(".kintsugi-metric")).to_have_text(["psnr", "ssim"])
    expect(chart.locator(".kintsugi-direction")).to_have_text(["\u2191 higher is better"] * 2)
    expect(chart.locator(".kintsugi-value").first).to_have_text("\u221e dB")
    expect(chart.locator(".kintsugi-row")).to_have_count(4)
    assert chart.locator(".kintsugi-best").count() == 2
    expect(canvas.locator(".kintsugi-chart").filter(has_text="colorfulness").locator(".kintsugi-row")).to_have_count(4)


def test_what_was_shown_returns_with_the_graph(canvas: Page) -> None:
    canvas.evaluate("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    expect(canvas.locator(".kintsugi-chart")).to_have_count(0)
    canvas.evaluate("() => app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
    expect(canvas.locator(".kintsugi-chart")).to_have_count(2)
    expect(canvas.locator(".kintsugi-stage")).to_have_count(1)


def test_previews_are_collected_and_can_be_seen_large_again(page: Page, served: Served) -> None:
    open_canvas(page, served.url)
    load_workflow(page, instantir(STEPS))
    look_at(page, SAMPLER)
    run(page)
    output(page, "13")
    thumbnails, caption = page.locator(".kintsugi-thumbnail"), page.locator(".kintsugi-large output")
    count = thumbnails.count()
    assert 2 <= count <= STEPS
    expect(caption).to_have_text(f"Preview {count} of {count}")
    page.evaluate("id => { const node = app.graph.getNodeById(id); app.canvas.ds.offset[1] -= node.size[1] - 600; }", SAMPLER)
    thumbnails.first.hover()
    expect(caption).to_have_text(f"Preview 1 of {count}")
    thumbnails.first.click()
    page.mouse.move(5, 5)
    expect(caption).to_have_text(f"Preview 1 of {count}")
    page.keyboard.press("ArrowRight")
    expect(caption).to_have_text(f"Preview 2 of {count}")
    assert page.locator(".kintsugi-large img").evaluate("picture => picture.naturalWidth") > 0
