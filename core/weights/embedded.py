"""The small weights that ship with the package: see the model cards beside the files."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "embedded"

VAE = FOLDER / "mini-vae.safetensors"
SWINIR = FOLDER / "mini-swinir.safetensors"
GENERATORS = {
    "gendr": FOLDER / "mini-gendr.safetensors",
    "tsd-sr": FOLDER / "mini-tsd-sr.safetensors",
    "instarevive": FOLDER / "mini-instarevive.safetensors",
}
# By family.
PRIORS = {
    "sd3": FOLDER / "mini-sd3.safetensors",
    "pixart-alpha": FOLDER / "mini-pixart.safetensors",
    "sdxl": FOLDER / "mini-sdxl.safetensors",
    "sd21-vae16": FOLDER / "mini-sd21.safetensors",
    "flux": FOLDER / "mini-flux.safetensors",
}
INSTANTIR = {
    "DCP": FOLDER / "mini-instantir-dcp.safetensors",
    "Previewer": FOLDER / "mini-instantir-previewer.safetensors",
    "Aggregator": FOLDER / "mini-instantir-aggregator.safetensors",
}
FLUXIR = FOLDER / "mini-fluxir.safetensors"
