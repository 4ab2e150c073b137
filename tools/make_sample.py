"""Make docs/sample: a photo as it was, and as blur, noise and JPEG compression left it. The same files every time.

The damage is the fixed mode `same` that `make quality` measures; the JPEG is stored as it came from the encoder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage
from kintsugi.core.degradation.fixed_modes import FIRST_SEED, FULL_CHROMA, Picture, blur, validation_crop, with_noise
from PIL import Image

SAMPLE = Path(__file__).parent.parent / "docs" / "sample"
PHOTO = "astronaut.png"
BLUR, NOISE, QUALITY = 1.2, 10.0, 45


def original() -> Picture:
    """Eileen Collins, photographed by NASA [512, 512, 3]."""
    return validation_crop(np.asarray(Image.open(Path(skimage.__file__).parent / "data" / PHOTO).convert("RGB")))


def main() -> None:
    clean = original()
    Image.fromarray(clean).save(SAMPLE / "clean.png", optimize=True)
    damaged = with_noise(blur(clean, BLUR), NOISE, np.random.default_rng(FIRST_SEED))
    Image.fromarray(damaged).save(SAMPLE / "sample.jpg", quality=QUALITY, subsampling=FULL_CHROMA)


if __name__ == "__main__":
    main()
