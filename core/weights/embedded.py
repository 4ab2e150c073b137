"""The small trained weights that ship with the package: see the model cards beside the files."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "embedded"

VAE = FOLDER / "mini-vae.safetensors"
GENERATORS = {"gendr": FOLDER / "mini-gendr.safetensors"}
