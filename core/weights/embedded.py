"""The small weights that ship with the package: see the model cards beside the files. Those called `untrained` restore nothing."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "embedded"

VAE = FOLDER / "mini-vae.safetensors"
SWINIR = FOLDER / "mini-swinir.safetensors"
GENERATORS = {
    "gendr": FOLDER / "mini-gendr.safetensors",
    "tsd-sr": FOLDER / "untrained-tsd-sr.safetensors",
    "instarevive": FOLDER / "untrained-instarevive.safetensors",
}
