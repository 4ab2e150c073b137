"""Where pictures and models lie, and the one check that a name from outside stays inside its folder."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from .errors import FileAccessError


def user_data_directory() -> Path:
    """The platform's folder for a person's application data, with our name at the end."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))
    return base / "kintsugi"


def default_models_directory() -> Path:
    """$KINTSUGI_MODELS, else `models` in the user data folder."""
    return Path(os.environ.get("KINTSUGI_MODELS", user_data_directory() / "models"))


@dataclass(frozen=True)
class Folders:
    """The folders that names in a workflow refer to. `granted` maps a name to a file the person named explicitly.

    `model_paths`: for a kind of weights, the folders searched in order; a kind not named there has `models/<kind>`.
    """

    input: Path = field(default_factory=lambda: Path.cwd() / "input")
    output: Path = field(default_factory=lambda: Path.cwd() / "output")
    temp: Path = field(default_factory=lambda: Path(tempfile.gettempdir()) / "kintsugi")
    models: Path = field(default_factory=default_models_directory)
    granted: dict[str, Path] = field(default_factory=dict)
    model_paths: dict[str, tuple[Path, ...]] = field(default_factory=dict)

    def base(self, kind: str) -> Path:
        """Folder of an annotation: `input`, `output` or `temp`."""
        return {"input": self.input, "output": self.output, "temp": self.temp}[kind]

    def of_models(self, kind: str) -> list[Path]:
        """Folders of a kind of weights: `vae`, or below one of the kinds, as in `kintsugi/gendr`."""
        top, _, below = kind.partition("/")
        return [folder / below for folder in self.model_paths.get(top, (self.models / top,))]

    def find(self, name: str) -> Path:
        """File of an annotated name such as `a.png`, `sub/a.png [output]`; raises FileAccessError when outside."""
        if name in self.granted:
            return self.granted[name]
        plain, kind = split_annotation(name)
        return confined(self.base(kind), plain)


def split_annotation(name: str) -> tuple[str, str]:
    """`a.png [output]` -> (`a.png`, `output`); without annotation the kind is `input`."""
    for kind in ("input", "output", "temp"):
        if name.endswith(f"[{kind}]"):
            return name[: -len(kind) - 2].rstrip(), kind
    return name, "input"


def confined(folder: Path, name: str) -> Path:
    """folder / name with links resolved; FileAccessError when that leaves the folder."""
    root = folder.resolve()
    path = (root / name).resolve()
    if path != root and root not in path.parents:
        raise FileAccessError(f"{name!r} leaves its folder.", where=str(folder), way_out="Use a name inside that folder.")
    return path
