"""Running, cancelling and coming back, as a person does it."""

from __future__ import annotations

from canvas import (
    cancel_button,
    instantir,
    job_status,
    load_prompt,
    load_workflow,
    node,
    open_canvas,
    output,
    run,
    shipped,
    wait_for_canvas,
)
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect
from watched_pages import Served, watched

PHOTO_SIDE = 96
LONG = 900


def wait_for_job(page: Page, job: str, status: str) -> None:
    page.wait_for_function("async ([job, status]) => (await (await fetch(`/api/jobs/${job}`)).json()).status === status", arg=[job, status])


def wait_for_preview(page: Page) -> None:
    """The sampler may lie outside of what is seen."""
    page.locator(".kintsugi-thumbnail").first.wait_for(state="attached")


def test_the_page_opens_with_the_pack_and_restore_photo_shows_and_writes_its_picture(page: Page, served: Served) -> None:
    open_canvas(page, served.url)
    known = page.evaluate("() => Object.keys(LiteGraph.registered_node_types)")
    assert {"KintsugiRestoreOneStep", "KintsugiAdaResSampler", "KintsugiCompare"} <= set(known)
    assert "kintsugi.displays" in page.evaluate("() => app.extensions.map(extension => extension.name)")
    load_workflow(page, shipped("restore_photo"))
    expect(cancel_button(page)).to_be_disabled()
    run(page)
    (entry,) = output(page, "4")
    page.wait_for_function("side => app.graph.getNodeById(4).imgs?.[0]?.naturalWidth === side", arg=PHOTO_SIDE)
    with Image.open(served.base / "output" / entry["filename"]) as restored:
        assert restored.size == (PHOTO_SIDE, PHOTO_SIDE)
        assert {"prompt", "workflow"} <= set(restored.info)


def test_a_run_is_cancelled_within_a_step(page: Page, served: Served) -> None:
    open_canvas(page, served.url)
    load_workflow(page, instantir(LONG))
    job = run(page)
    wait_for_preview(page)
    cancel_button(page).click()
    wait_for_job(page, job, "cancelled")
    expect(cancel_button(page)).to_be_disabled()


def test_a_reload_during_a_run_brings_the_run_back(page: Page, served: Served) -> None:
    open_canvas(page, served.url)
    load_workflow(page, instantir(LONG + 1))
    job = run(page)
    wait_for_preview(page)
    page.reload()
    wait_for_canvas(page)
    page.wait_for_function("() => app.graph.getNodeById(10)?.type === 'KintsugiAdaResSampler'")
    wait_for_preview(page)
    assert job_status(page, job) == "in_progress"
    cancel_button(page).click()
    wait_for_job(page, job, "cancelled")


def test_two_tabs_run_at_once_and_each_sees_its_own_picture(page: Page, context: BrowserContext, served: Served) -> None:
    load_and_show = {"1": node("LoadImage", image="example.png"), "9": node("PreviewImage", images=["1", 0])}
    inverted = {**load_and_show, "2": node("ImageInvert", image=["1", 0]), "9": node("PreviewImage", images=["2", 0])}
    with watched(context, served) as other:
        pages = {page: load_and_show, other: inverted}
        for tab, prompt in pages.items():
            open_canvas(tab, served.url)
            load_prompt(tab, prompt)
        jobs = {tab: run(tab) for tab in pages}
        shown = {tab: output(tab, "9") for tab in pages}
        for tab, job in jobs.items():
            wait_for_job(tab, job, "completed")
            detail = tab.evaluate("async job => (await fetch(`/api/jobs/${job}`)).json()", job)
            assert detail["outputs"]["9"]["images"] == shown[tab]
    assert shown[page] != shown[other]
