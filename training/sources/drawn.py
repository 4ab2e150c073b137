"""Scenes that this repository draws."""

from __future__ import annotations

from ...core.folders import user_data_directory
from ..procedural.bank import load_bank
from .base import Example


class DrawnPictures:
    """The bank of drawn scenes; drawn at first use and kept in the user's data folder."""

    def __init__(self, pictures: int, size: int, seed: int) -> None:
        self._bank = load_bank(user_data_directory() / "banks", pictures, size, seed)

    def __len__(self) -> int:
        return len(self._bank)

    def name(self, index: int) -> str:
        return f"scene {index}"

    def caption(self, index: int) -> str:
        return ""

    def example(self, index: int) -> Example:
        return Example(self._bank[index])
