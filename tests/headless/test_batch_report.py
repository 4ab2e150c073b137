from __future__ import annotations

import base64
import io
import os
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from kintsugi.core.errors import FileAccessError, MissingPackageError
from kintsugi.headless import batch_report
from kintsugi.headless.batch import BatchSummary
from kintsugi.headless.batch_report import require_report_package, write_report
from kintsugi.headless.manifest import Record
from kintsugi.headless.report_thumbnails import make_thumbnail
from PIL import Image
from tiny_workflow import write_picture

WITHOUT_END = {"meta", "img", "source"}


class Page(HTMLParser):
    """A report as a browser sees it; every element is closed in its turn."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in WITHOUT_END:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def values(self, tag: str, attribute: str) -> list[str]:
        return [attributes[attribute] or "" for name, attributes in self.elements if name == tag and attribute in attributes]

    def thumbnails(self) -> list[Image.Image]:
        sources = [source for source in self.values("img", "src") if source.startswith("data:image/jpeg")]
        return [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]


def record(name: str, outputs: list[str] | None = None, error: str | None = None, **metrics: float | None) -> Record:
    settings, parameters = {"device": "cpu", "threads": 2}, {"2": {"scale_by": 0.5, "words": "<em>sharp</em>"}}
    measures = {"Measure <it>": metrics} if metrics else {}
    return Record(name, "0" * 64, "1" * 64, settings, {"2": 7}, parameters, outputs or [], 0.0 if error else 1.5, measures, error)


def reported(folder: Path, records: list[Record], **counts: int) -> Page:
    (folder / "out").mkdir(exist_ok=True)
    path = write_report(folder / "in", folder / "out", records, BatchSummary(**counts), "restore <photo>")
    assert path == folder / "out/report.html"
    assert sorted(left.name for left in path.parent.iterdir() if left.name.startswith(".")) == []
    return Page(path)


def restored(folder: Path, name: str, **metrics: float | None) -> Record:
    write_picture(folder / "in" / name)
    write_picture(folder / "out" / f"{name}.png", 24, 16)
    return record(name, [f"{name}.png"], **metrics)


def test_a_report_tells_counts_pictures_seconds_measures_and_how_it_was_made(tmp_path: Path) -> None:
    page = reported(
        tmp_path, [restored(tmp_path, "a.png", psnr=28.123), restored(tmp_path, "sub/b.png", psnr=None)], done=2, not_pictures=3
    )
    assert "restore <photo>" in page.text
    assert "2restored0kept from before0failed3other files passed over" in page.text
    assert "12 x 8 → 24 x 16, 1.5 s" in page.text
    assert "psnr 28.12" in page.text
    assert "psnr unknown" in page.text
    assert "threads2" in page.text
    assert "words<em>sharp</em>" in page.text
    assert "psnr (Measure <it>) 1 picture: median 28.12" in page.text
    assert "3 s of work together" in page.text
    assert "Failed" not in page.text
    assert len(page.thumbnails()) == 4


def test_nothing_in_it_comes_from_elsewhere(tmp_path: Path) -> None:
    page = reported(tmp_path, [restored(tmp_path, "a.png", psnr=1.0)], done=1)
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe", "object", "base", "form"})
    for tag, attribute in (("img", "src"), ("source", "srcset")):
        assert all(value.startswith("data:image/") for value in page.values(tag, attribute))
    assert page.values("a", "href") == ["../in/a.png", "a.png.png", "a.png.png"]
    assert "default-src 'none'; img-src data:; style-src 'sha256-" in page.values("meta", "content")[0]
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.elements for name in attributes)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere these are no file names")
@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)<.png",
        '" onerror="alert(1)',
        "' & &amp; #?%41.png",
        "a\nb\u202e.png",
        os.fsdecode(b"caf\xe9.png"),
        "写真.png",
        "javascript:alert(1)",
    ],
)
def test_a_hostile_name_is_only_a_name_and_its_links_lead_to_its_files(tmp_path: Path, name: str) -> None:
    for path in (tmp_path / "in" / name, tmp_path / "out" / name):
        path.parent.mkdir()
        Image.new("RGB", (9, 6)).save(path, "PNG")
    page = reported(tmp_path, [record(name, [name]), record(name, error=f"{name}: broken.")], done=1, failed=1)
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.text.count(name.encode("utf-8", "backslashreplace").decode()) == 3
    assert not any(urlsplit(link).scheme for link in page.values("a", "href"))
    links = [tmp_path / "out" / unquote(link, errors="surrogateescape") for link in page.values("a", "href")]
    assert len(links) == 4
    assert all(link.is_file() for link in links)


def test_failed_pictures_come_first_with_their_messages(tmp_path: Path) -> None:
    failed = record("broken.png", error="the picture is damaged <here>.")
    page = reported(tmp_path, [restored(tmp_path, "a.png"), failed], done=1, failed=1)
    assert page.text.index("broken.pngthe picture is damaged <here>.") < page.text.index("a.png")
    assert len(page.thumbnails()) == 2


def test_a_batch_of_failures_only_has_no_plots(tmp_path: Path) -> None:
    page = reported(tmp_path, [record(f"{number}.png", error="broken.") for number in range(1200)], failed=1200)
    assert "1000 of 1200. These are the first. manifest.jsonl has all." in page.text
    assert "No picture was restored." in page.text
    assert page.values("img", "src") == []


def test_a_batch_without_pictures_has_a_report_too(tmp_path: Path) -> None:
    assert "No picture was restored." in reported(tmp_path, []).text


def test_of_many_pictures_two_hundred_are_shown_from_the_first_to_the_last(tmp_path: Path) -> None:
    write_picture(tmp_path / "in/a.png", 2, 2)
    write_picture(tmp_path / "out/a.png", 2, 2)
    for number in range(450):
        (tmp_path / f"in/{number:03d}.png").hardlink_to(tmp_path / "in/a.png")
    page = reported(tmp_path, [record(f"{number:03d}.png", ["a.png"]) for number in range(450)], done=450)
    assert "200 of 450. The pictures shown are spread evenly over the run." in page.text
    assert len(page.thumbnails()) == 400
    assert "000.png" in page.text
    assert "449.png" in page.text
    assert "450 pictures: median 1.5" in page.text


def test_pictures_that_vanished_or_cannot_be_read_leave_an_empty_place_with_the_reason(tmp_path: Path) -> None:
    one, two, three = (restored(tmp_path, name) for name in ("a.png", "b.png", "c.png"))
    (tmp_path / "out/a.png.png").unlink()
    (tmp_path / "in/b.png").write_text("no picture")
    whole = (tmp_path / "out/c.png.png").read_bytes()
    (tmp_path / "out/c.png.png").write_bytes(whole[: len(whole) // 2])
    page = reported(tmp_path, [one, two, three], done=3)
    assert len(page.thumbnails()) == 3
    for reason in ("there is no such file.", "this is no picture", "damaged or cut short"):
        assert reason in page.text
    assert "12 x 8 → ?" in page.text


def test_all_results_of_a_picture_are_linked(tmp_path: Path) -> None:
    write_picture(tmp_path / "out/second.jpg")
    several = restored(tmp_path, "a.png")
    several.outputs.append("second.jpg")
    assert "second.jpg" in reported(tmp_path, [several], done=1).values("a", "href")


def test_pictures_made_in_another_way_are_counted(tmp_path: Path) -> None:
    other = restored(tmp_path, "c.png")
    other.settings["device"] = "cuda"
    page = reported(tmp_path, [restored(tmp_path, "a.png"), restored(tmp_path, "b.png"), other], done=3)
    assert "So were 2 of 3 pictures made" in page.text
    assert "devicecpu" in page.text


def test_values_that_cannot_be_drawn_are_left_out_of_the_plot_and_told(tmp_path: Path) -> None:
    records = [restored(tmp_path, f"{value}.png", psnr=value) for value in (float("inf"), float("nan"), 30.0)]
    page = reported(tmp_path, records, done=3)
    assert "psnr inf" in page.text
    assert "1 picture: median 30, from 30 to 30" in page.text


def plain(kind: str) -> Image.Image:
    """400 x 320 pixels of one colour: (200, 100, 50), or grey 100."""
    samples = np.full((320, 400), 100, dtype=np.uint8)
    if kind == "I;16":
        return Image.fromarray(samples.astype(np.uint16) * 257)
    if kind in ("L", "LA"):
        return Image.fromarray(samples).convert(kind)
    colour = Image.new("RGB", (400, 320), (200, 100, 50))
    return colour.quantize(4) if kind == "P" else colour.convert(kind)


@pytest.mark.parametrize(
    ("name", "kind", "colour"),
    [
        ("grey.png", "L", (100, 100, 100)),
        ("grey.jpg", "L", (100, 100, 100)),
        ("grey_alpha.png", "LA", (100, 100, 100)),
        ("deep.png", "I;16", (100, 100, 100)),
        ("deep.tif", "I;16", (100, 100, 100)),
        ("palette.gif", "P", (200, 100, 50)),
        ("colour.webp", "RGB", (200, 100, 50)),
        ("alpha.png", "RGBA", (200, 100, 50)),
        ("print.jpg", "CMYK", (200, 100, 50)),
    ],
)
def test_every_kind_of_picture_gets_its_thumbnail(tmp_path: Path, name: str, kind: str, colour: tuple[int, int, int]) -> None:
    plain(kind).save(tmp_path / name)
    thumbnail = make_thumbnail(tmp_path / name)
    small = np.asarray(Image.open(io.BytesIO(thumbnail.jpeg))).astype(int)
    assert (thumbnail.width, thumbnail.height) == (400, 320)
    assert small.shape == (128, 160, 3)
    assert np.abs(small - np.array(colour)).max() <= 6


def test_colours_below_transparency_do_not_show(tmp_path: Path) -> None:
    image = Image.new("RGBA", (40, 20), (255, 0, 0, 0))
    image.save(tmp_path / "clear.png")
    assert Image.open(io.BytesIO(make_thumbnail(tmp_path / "clear.png").jpeg)).getpixel((5, 5)) == (176, 176, 176)


def test_a_turned_photo_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (400, 200), "white")
    image.paste((0, 0, 0), (0, 0, 200, 200))
    image.save(tmp_path / "turned.jpg", exif=exif)
    thumbnail = make_thumbnail(tmp_path / "turned.jpg")
    small = Image.open(io.BytesIO(thumbnail.jpeg)).convert("L")
    assert (thumbnail.width, thumbnail.height, small.size) == (200, 400, (80, 160))
    assert small.getpixel((40, 10)) == 0
    assert small.getpixel((40, 150)) == 255


def test_a_report_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match=r"report\.html"):
        write_report(tmp_path / "in", tmp_path / "gone", [], BatchSummary(), "restore")


def test_without_matplotlib_the_extra_is_named_before_a_batch_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_report_package()
    monkeypatch.setattr(batch_report, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"kintsugi-restoration\[report\]"):
        require_report_package()
    with pytest.raises(MissingPackageError):
        reported(tmp_path, [])
    assert list((tmp_path / "out").iterdir()) == []
