"""Where the golden files lie: vectors made with the papers' original code."""

from __future__ import annotations

from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"
