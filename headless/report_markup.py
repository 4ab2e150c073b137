"""HTML that is escaped unless it was made here: names and messages in a page come from outside."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_WITHOUT_END = ("meta", "img", "source")


class Markup(str):
    """Text that is HTML already."""


def tag(name: str, /, *content: str, **attributes: str) -> Markup:
    """`<name attribute="...">content</name>`. A name that is a word of Python takes a `_` at its end: class_."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{written}>" if name in _WITHOUT_END else f"<{name}{written}>{joined(content)}</{name}>")


def joined(parts: Iterable[str]) -> Markup:
    """One after the other, each escaped that is no Markup."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def table(rows: Iterable[tuple[str, str]]) -> Markup:
    """A table of names and values."""
    return tag("table", *(tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in rows))
