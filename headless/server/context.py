"""What every route may use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.folders import Folders
from ...core.graph.registry import Registry
from .options import ServerOptions

if TYPE_CHECKING:
    from .engine import Engine


@dataclass(frozen=True)
class Context:
    """One server: its options, folders, node classes and the engine that runs prompts. `user` holds settings and workflows."""

    options: ServerOptions
    folders: Folders
    user: Path
    registry: Registry
    engine: Engine
