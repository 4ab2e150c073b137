"""What a batch did, as one HTML file for a person: counts, failures, pictures before and after, time and quality."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..core.errors import KintsugiError, MissingPackageError
from ..core.file_names import written_whole
from ..core.runtime import current_host
from .manifest import NAME as MANIFEST
from .manifest import Record, writing_to
from .pace import human_time
from .report_markup import Markup, joined, table, tag
from .report_plots import Plot, plot_histogram, plot_in_order
from .report_style import STYLE
from .report_thumbnails import make_thumbnail

if TYPE_CHECKING:
    from .batch import BatchSummary

NAME = "report.html"
MOST_PICTURES = 200
MOST_FAILURES = 1000


def require_report_package() -> None:
    """Raises MissingPackageError without matplotlib. To be called before a batch begins, not after a night of it."""
    if find_spec("matplotlib") is None:
        raise MissingPackageError(
            "the report's plots need matplotlib, which is not installed.", way_out="pip install 'kintsugi-restoration[report]'"
        )


def write_report(source: Path, target: Path, records: Sequence[Record], summary: BatchSummary, workflow: str) -> Path:
    """`target/report.html` on the pictures of `source` that the records are of; nothing in it comes from elsewhere.

    workflow: its name, for the title. A picture that cannot be shown gets an empty place with the reason.
    Raises MissingPackageError, and FileAccessError when the file cannot be written.
    """
    require_report_package()
    path = target / NAME
    page = _page(workflow, _body(source, target, records, summary, workflow))
    with writing_to(path), written_whole(path) as temporary:
        # A file name may be no valid text.
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path


def _page(title: str, body: Markup) -> str:
    style_hash = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{style_hash}'; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title}: report of a batch"),
        tag("style", Markup(STYLE)),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _body(source: Path, target: Path, records: Sequence[Record], summary: BatchSummary, workflow: str) -> Markup:
    done = [record for record in records if record.error is None and record.outputs]
    failed = [record for record in records if record.error is not None]
    shown = _evenly(done, MOST_PICTURES)
    return tag(
        "body",
        tag("h1", tag("bdi", workflow)),
        tag("p", f"Report of a batch, {datetime.now():%Y-%m-%d %H:%M}. From ", _path(source), " to ", _path(target), ".", class_="faint"),
        _counts(summary),
        _how_made(records),
        _failures(source, target, failed) if failed else "",
        tag("h2", "Pictures before and after"),
        _note(len(shown), len(done), "The pictures shown are spread evenly over the run.")
        if done
        else tag("p", "No picture was restored."),
        tag("ul", *_cards(source, target, shown), class_="cards"),
        _plots(done) if done else "",
    )


def _path(path: Path) -> Markup:
    return tag("bdi", str(path))


def _evenly(records: Sequence[Record], most: int) -> Sequence[Record]:
    """At most so many of them, the first and the last included."""
    if len(records) <= most:
        return records
    return [records[round(place * (len(records) - 1) / (most - 1))] for place in range(most)]


def _note(shown: int, all_of_them: int, which: str) -> Markup | str:
    """Which of them are shown, where not all are."""
    return "" if shown == all_of_them else tag("p", f"{shown} of {all_of_them}. {which} {MANIFEST} has all.", class_="faint")


def _counts(summary: BatchSummary) -> Markup:
    counts = {"restored": summary.done, "kept from before": summary.kept, "failed": summary.failed}
    counts |= {"other files passed over": summary.not_pictures}
    cells = (
        tag("li", tag("b", f"{count:,}"), words, class_="bad" if words == "failed" and count else "count")
        for words, count in counts.items()
    )
    return tag("ul", *cells, class_="counts")


def _how_made(records: Sequence[Record]) -> Markup:
    """Machine, seeds and parameters of the largest group of pictures made in one way."""
    ways = Counter(json.dumps([record.settings, record.seeds, record.parameters], sort_keys=True) for record in records)
    if not ways:
        return Markup()
    way, count = ways.most_common(1)[0]
    settings, seeds, parameters = json.loads(way)
    others = f"So were {count} of {len(records)} pictures made; {MANIFEST} tells of the others." if len(ways) > 1 else ""
    return tag(
        "details",
        tag("summary", "Machine, seeds and parameters"),
        tag("p", others, class_="faint"),
        tag("h3", "Machine"),
        _values(settings),
        tag("h3", "Seeds, by node"),
        _values(seeds),
        *(part for node, inputs in parameters.items() if inputs for part in (tag("h3", f"Node {node}"), _values(inputs))),
    )


def _values(values: dict[str, Any]) -> Markup:
    return table((name, value if isinstance(value, str) else json.dumps(value)) for name, value in values.items())


def _failures(source: Path, target: Path, failed: Sequence[Record]) -> Markup:
    shown = failed[:MOST_FAILURES]
    lines = (tag("li", _link(source / record.input, target, record.input), tag("p", record.error or "")) for record in shown)
    return joined(
        (tag("h2", "Failed"), _note(len(shown), len(failed), "These are the first."), tag("ul", *lines, class_="failed")),
    )


def _cards(source: Path, target: Path, records: Sequence[Record]) -> Iterator[Markup]:
    progress = current_host().progress(len(records), "Report")
    for record in records:
        yield _card(source, target, record)
        progress.advance()


def _card(source: Path, target: Path, record: Record) -> Markup:
    first, *others = record.outputs
    before, size_before = _thumbnail(source / record.input, target, "before")
    after, size_after = _thumbnail(target / first, target, "after")
    more = [tag("p", "And: ", _link(target / name, target, name)) for name in others]
    measures = [f"{measure} {_number(value)}" for _, measure, value in _measures(record)]
    return tag(
        "li",
        tag("div", before, after, class_="pair"),
        tag("h3", _link(target / first, target, record.input)),
        tag("p", f"{size_before} → {size_after}, {record.seconds:.1f} s", class_="faint"),
        *([tag("p", ", ".join(measures))] if measures else []),
        *more,
        class_="card",
    )


def _thumbnail(path: Path, target: Path, words: str) -> tuple[Markup, str]:
    """The picture in its frame, linked to its file, and its size in words."""
    caption = tag("figcaption", words)
    try:
        thumbnail = make_thumbnail(path)
    except KintsugiError as error:
        return tag("figure", tag("div", error.what, class_="frame empty"), caption), "?"
    image = tag("img", src=_data_uri("image/jpeg", thumbnail.jpeg), alt=words)
    framed = tag("a", tag("div", image, class_="frame"), href=_address(path, target))
    return tag("figure", framed, caption), f"{thumbnail.width} x {thumbnail.height}"


def _link(path: Path, target: Path, words: str) -> Markup:
    return tag("a", tag("bdi", words), href=_address(path, target))


def _address(path: Path, target: Path) -> str:
    """Relative to the report, so that both folders can be moved together; whole where they lie on different drives."""
    try:
        relative = os.path.relpath(path, target)
    except ValueError:
        return path.absolute().as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _measures(record: Record) -> Iterator[tuple[str, str, float | None]]:
    """(node, measure, value) of every measure."""
    return ((node, measure, value) for node, values in record.metrics.items() for measure, value in values.items())


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _plots(records: Sequence[Record]) -> Markup:
    seconds = [record.seconds for record in records]
    total = f"{human_time(sum(seconds))} of work together, with the kept ones"
    figures = [
        _figure("Seconds of each picture", total, plot_in_order(seconds, "picture, in the order of the run", "seconds")),
        _figure("Seconds", _spread(seconds), plot_histogram(seconds, "seconds", "pictures")),
    ]
    for (node, measure), values in _finite_values(records).items():
        figures.append(_figure(f"{measure} ({node})", _spread(values), plot_histogram(values, "", "pictures")))
    return joined((tag("h2", "Time and quality"), tag("div", *figures, class_="plots")))


def _finite_values(records: Iterable[Record]) -> dict[tuple[str, str], list[float]]:
    """The values of each (node, measure), without those that cannot be drawn: two equal pictures differ by infinitely many dB."""
    found: dict[tuple[str, str], list[float]] = {}
    for record in records:
        for node, measure, value in _measures(record):
            if value is not None and math.isfinite(value):
                found.setdefault((node, measure), []).append(value)
    return found


def _spread(values: Sequence[float]) -> str:
    count = f"{len(values):,} picture{'s' * (len(values) > 1)}"
    return f"{count}: median {_number(median(values))}, from {_number(min(values))} to {_number(max(values))}"


def _figure(title: str, words: str, plot: Plot) -> Markup:
    dark = tag("source", media="screen and (prefers-color-scheme: dark)", srcset=_data_uri("image/png", plot.dark))
    light = tag("img", src=_data_uri("image/png", plot.light), alt=f"{title}. {words}.")
    return tag("figure", tag("figcaption", tag("b", title), f" {words}"), tag("picture", dark, light))
