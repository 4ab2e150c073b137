"""A running server, and pages of it whose complaints are heard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import BrowserContext, ConsoleMessage, Error, Page

OURS = "/extensions/Kintsugi"
# What the page itself asks for and takes no for an answer to.
EXPECTED_MISSING = ("/api/userdata/comfy.templates.json", "/api/userdata/workflows%2F.index.json", "/favicon.ico")


@dataclass(frozen=True)
class Served:
    """A running server: its address, without a slash at the end, and the folder that holds input, output and user."""

    url: str
    base: Path


@dataclass
class Complaints:
    """What a page said that it should not have said."""

    lines: list[str] = field(default_factory=list)

    def hear(self, message: ConsoleMessage) -> None:
        place = message.location.get("url", "")
        ours = OURS in place or "Kintsugi" in message.text
        if (message.type == "error" or (message.type == "warning" and ours)) and not place.endswith(EXPECTED_MISSING):
            self.lines.append(f"{message.type}: {message.text} ({place})")

    def catch(self, error: Error) -> None:
        self.lines.append(error.stack or error.message)


@contextmanager
def watched(context: BrowserContext, served: Served) -> Iterator[Page]:
    """An empty page of the server; what it complains about fails the test. The page's memory of earlier ones is wiped."""
    opened = context.new_page()
    complaints = Complaints()
    opened.on("console", complaints.hear)
    opened.on("pageerror", complaints.catch)
    opened.goto(f"{served.url}/api/features")
    opened.evaluate("localStorage.clear()")
    yield opened
    opened.close()
    assert not complaints.lines, "\n".join(complaints.lines)
