"""The end of `make demo`: where the restored sample is, and how much nearer it came to the original.

Usage: python tools/demo.py RESTORED.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from kintsugi.headless.commands.score import score_files
from kintsugi.headless.console import say, say_table

SAMPLE = Path(__file__).parent.parent / "docs" / "sample"
DIGITS = {"psnr": 2, "ssim": 4}
NAMES = {"psnr": "PSNR, dB", "ssim": "SSIM"}


def main(restored: Path) -> None:
    damaged = SAMPLE / "sample.jpg"
    before, after = (entry["scores"] for entry in score_files([damaged, restored], SAMPLE / "clean.png", ",".join(NAMES)))
    rows = [
        (NAMES[name], f"{before[name]:.{digits}f}", f"{after[name]:.{digits}f}", f"{after[name] - before[name]:+.{digits}f}")
        for name, digits in DIGITS.items()
    ]
    say()
    say_table(("against the original", "before", "after", "gained"), rows)
    say()
    say(f"Before: {damaged.resolve()}")
    say(f"After:  {restored.resolve()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
