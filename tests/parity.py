"""Hold our numbers against golden files: python tests/parity.py METHOD FOLDER [--json] [--kind inference|training].

Every sidecar of FOLDER that belongs to METHOD is run, a line per tensor with its error and tolerance. Exit status 0 when
all hold, 1 when one does not, 2 for a request that cannot be run. Another method joins by a module
`parity_cases/<method>.py` with a tuple CASES.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from kintsugi.core.errors import KintsugiError
from parity_cases.sidecar import BadRequestError, Case, Check, Kind, Sidecar

CASES_FOLDER = Path(__file__).parent / "parity_cases"
KINDS: tuple[Kind, ...] = ("inference", "training")


def methods() -> list[str]:
    """Every method that has cases."""
    return sorted(path.stem.replace("_", "-") for path in CASES_FOLDER.glob("*.py") if path.stem != "sidecar")


def cases_of(method: str) -> tuple[Case, ...]:
    if method not in methods():
        raise BadRequestError(f"there is no method {method!r}; the methods are: {', '.join(methods())}")
    return importlib.import_module(f"parity_cases.{method.replace('-', '_')}").CASES


def run_parity(method: str, folder: Path, kind: Kind | None = None) -> list[Check]:
    """Every check of the method's cases of that kind (of both kinds without) on the sidecars of the folder."""
    cases = [case for case in cases_of(method) if kind in (None, case.kind)]
    if not folder.is_dir():
        raise BadRequestError(f"{folder} is not a folder")
    sidecars = [sidecar for path in sorted(folder.glob("*.json")) if (sidecar := Sidecar.read(path))]
    checks = [check for sidecar in sidecars for case in cases if case.applies(sidecar) for check in case.run(sidecar)]
    if not checks:
        raise BadRequestError(f"{folder}: no sidecar belongs to {kind + ' cases of ' if kind else ''}{method}")
    return checks


def line(check: Check) -> str:
    mark = "ok  " if check.passed else "FAIL"
    text = f"{mark} {check.file}: {check.tensor}: error {check.error:.3g}, tolerance {check.limit:.3g}"
    return f"{text} ({check.note})" if check.note else text


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Hold our numbers against golden files.", epilog="Example: parity.py degradation tests/golden/tsd-sr"
    )
    parser.add_argument("method", help="one of: " + ", ".join(methods()))
    parser.add_argument("folder", type=Path, help="a folder with .json sidecars and their .safetensors")
    parser.add_argument("--kind", choices=KINDS, help="only inference, or only training")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    options = parser.parse_args(arguments)
    try:
        checks = run_parity(options.method, options.folder, options.kind)
    except (BadRequestError, KintsugiError) as error:
        sys.stderr.write(f"parity: {error}\n")
        return 2
    passed = all(check.passed for check in checks)
    if options.json:
        report = {"method": options.method, "passed": passed, "checks": [_finite(asdict(check)) for check in checks]}
        sys.stdout.write(json.dumps(report, indent=1) + "\n")
    else:
        held = sum(check.passed for check in checks)
        sys.stdout.write("\n".join([*map(line, checks), f"{held} of {len(checks)} hold"]) + "\n")
    return 0 if passed else 1


def _finite(entry: dict[str, object]) -> dict[str, object]:
    """JSON has no infinity: an error that cannot be measured is null."""
    return {**entry, "error": None} if entry["error"] == float("inf") else entry


if __name__ == "__main__":
    sys.exit(main())
