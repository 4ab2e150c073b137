"""What commands print: results on stdout, as lines or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO


def say(line: str = "") -> None:
    """A line on stdout, above the bars where there are some (they stand in for sys.stdout, which typer.echo goes around)."""
    _write(sys.stdout, line)


def complain(message: str) -> None:
    """A line on stderr that says whose it is."""
    _write(sys.stderr, f"kintsugi: {message}")


def say_json(value: Any) -> None:
    """The value as JSON on stdout; paths as text."""
    say(json.dumps(value, indent=2, ensure_ascii=False, default=_as_text))


def say_event(kind: str, value: Mapping[str, Any]) -> None:
    """A line of JSON on stdout, for machines that read along: {"event": kind, ...}."""
    say(json.dumps({"event": kind, **value}, default=_as_text))


def _write(stream: TextIO, line: str) -> None:
    stream.write(f"{line}\n")
    stream.flush()


def _as_text(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def say_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as their longest cell; plain text, so that it can be piped."""
    lines = [tuple(heads), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def human_size(size: int) -> str:
    """Bytes as a person reads them: 512 B, 3.4 MB."""
    amount, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.0f} {units[0]}" if units[0] == "B" else f"{amount:.1f} {units[0]}"
