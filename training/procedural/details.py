"""Details that lie on a scene: wires, grids, lettering, facades, highlights."""

from __future__ import annotations

import string
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .arrays import SUPERSAMPLING, Floats, from_image, lay_over
from .leaves import curve_points
from .palettes import Palette

LETTERS = string.ascii_letters * 3 + string.digits + ".,:;-!?&%/()"


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def draw_words(rng: np.random.Generator, size: tuple[int, int], height: int) -> Image.Image:
    """Lines of random words, mode L, white on black; size and letter height in pixels."""
    page = Image.new("L", size)
    draw = ImageDraw.Draw(page)
    upper = rng.random() < 0.35
    for top in range(0, size[1], max(2, int(height * rng.uniform(1.1, 1.7)))):
        words = ["".join(rng.choice(list(LETTERS), rng.integers(1, 10))) for _ in range(2 + size[0] // (height * 3))]
        line = " ".join(words)
        draw.text((int(rng.integers(0, height)), top), line.upper() if upper else line, fill=255, font=_font(height))
    return page


def lettering(rng: np.random.Generator, canvas: Floats, palette: Palette) -> None:
    """A sign or page: a panel with rows of words, turned, at times without its panel."""
    size = canvas.shape[0]
    height = int(np.exp(rng.uniform(np.log(9), np.log(60)))) * SUPERSAMPLING
    width, tall = int(size * rng.uniform(0.3, 1.2)) * SUPERSAMPLING, int(max(height * 1.2, size * rng.uniform(0.06, 0.5) * SUPERSAMPLING))
    words = draw_words(rng, (width, tall), height)
    panel = Image.new("L", words.size, 255 if rng.random() < 0.65 else 0)
    fine = size * SUPERSAMPLING
    box = (int(rng.integers(-width // 4, fine)), int(rng.integers(-tall // 4, fine)))
    box = (min(box[0], fine - width // 2), min(box[1], fine - tall // 2))
    sheet, ink = Image.new("L", (fine, fine)), Image.new("L", (fine, fine))
    sheet.paste(panel, box)
    ink.paste(words, box)
    angle = rng.normal(0, 6) if rng.random() < 0.7 else rng.uniform(-90, 90)
    sheet, ink = (_turned(image, angle, box, words.size) for image in (sheet, ink))
    luma = rng.random()
    lay_over(canvas, palette.colour(rng, luma), from_image(sheet) * np.float32(rng.uniform(0.8, 1)))
    lay_over(canvas, palette.colour(rng, (luma + rng.uniform(0.4, 0.6)) % 1), from_image(ink) * np.float32(rng.uniform(0.7, 1)))


def _turned(image: Image.Image, angle: float, corner: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    centre = (corner[0] + size[0] / 2, corner[1] + size[1] / 2)
    return image.rotate(angle, Image.Resampling.BILINEAR, center=centre).reduce(SUPERSAMPLING)


def wires(rng: np.random.Generator, canvas: Floats, palette: Palette) -> None:
    """A few long thin curves or straight lines, half a pixel to three pixels wide: cables, stems, whiskers, scratches."""
    size = canvas.shape[0]
    layer = Image.new("L", (size * SUPERSAMPLING, size * SUPERSAMPLING))
    draw = ImageDraw.Draw(layer)
    for _ in range(rng.integers(1, 9)):
        points = (curve_points(rng, size * rng.uniform(0.2, 1.6)) + rng.uniform(0, size, 2)) * SUPERSAMPLING
        if rng.random() < 0.4:
            points = points[[0, -1]]
        draw.line([(float(x), float(y)) for x, y in points], fill=255, width=int(rng.integers(1, 6)), joint="curve")
    lay_over(canvas, palette.colour(rng), from_image(layer.reduce(SUPERSAMPLING)) * np.float32(rng.uniform(0.5, 1)))


def grid(rng: np.random.Generator, canvas: Floats, palette: Palette) -> None:
    """A fence, mesh, railing or window bars: two (or one) families of parallel lines in perspective over a part of the picture."""
    size = canvas.shape[0]
    fine = size * SUPERSAMPLING
    layer = Image.new("L", (fine, fine))
    draw = ImageDraw.Draw(layer)
    step = np.exp(rng.uniform(np.log(6), np.log(50))) * SUPERSAMPLING
    width = max(1, round(step * rng.uniform(0.06, 0.25)))
    families = [rng.uniform(0, np.pi)]
    if rng.random() < 0.6:
        families.append(families[0] + np.pi / 2)
    for angle in families:
        normal = np.array([np.cos(angle), np.sin(angle)])
        along = np.array([-normal[1], normal[0]])
        fan = rng.normal(0, 0.25) * (rng.random() < 0.5)
        for offset in np.arange(-fine * 0.75, fine * 0.75, step):
            centre = np.array([fine / 2, fine / 2]) + normal * offset
            slope = along + normal * fan * offset / fine
            draw.line([tuple(centre - slope * fine), tuple(centre + slope * fine)], fill=255, width=width)
    alpha = from_image(layer.reduce(SUPERSAMPLING))
    if rng.random() < 0.8:
        low, high = np.sort(rng.integers(0, size, 2)), np.sort(rng.integers(0, size, 2))
        part = np.zeros_like(alpha)
        part[low[0] : low[1], high[0] : high[1]] = 1
        alpha = alpha * part
    lay_over(canvas, palette.colour(rng), alpha)


def facade(rng: np.random.Generator, canvas: Floats, palette: Palette) -> None:
    """A house front: rows of windows with frames, sills and reflections, the lower floors wider."""
    size = canvas.shape[0]
    fine = size * SUPERSAMPLING
    wall, glass, frame = (palette.colour(rng, luma) for luma in (rng.uniform(0.3, 0.9), rng.uniform(0, 0.35), rng.uniform(0.5, 1)))
    left, right = int(fine * rng.uniform(0, 0.5)), int(fine * rng.uniform(0.55, 1))
    top = int(fine * rng.uniform(0, 0.5))
    picture = Image.new("RGB", (fine, fine))
    alpha = Image.new("L", (fine, fine))
    ImageDraw.Draw(alpha).rectangle((left, top, right, fine), fill=255)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left, top, right, fine), fill=_bytes(wall))
    across, down = rng.uniform(16, 60) * SUPERSAMPLING, rng.uniform(18, 70) * SUPERSAMPLING
    fill_x, fill_y, sill = rng.uniform(0.35, 0.75), rng.uniform(0.4, 0.8), max(1, int(across * rng.uniform(0.02, 0.08)))
    for y in np.arange(top + down * 0.2, fine, down):
        for x in np.arange(left + across * 0.15, right - across * fill_x, across):
            box = (int(x), int(y), int(x + across * fill_x), int(y + down * fill_y))
            draw.rectangle(box, fill=_bytes(glass * rng.uniform(0.6, 1.5)), outline=_bytes(frame), width=sill)
            middle = (box[0] + box[2]) // 2
            draw.line((middle, box[1], middle, box[3]), fill=_bytes(frame), width=sill)
            draw.rectangle((box[0] - sill, box[3], box[2] + sill, box[3] + sill), fill=_bytes(wall * 0.6))
    lean = rng.normal(0, 0.12)
    data = (1.0, lean, -lean * fine / 2, rng.normal(0, 0.12), 1.0, 0.0)
    picture, alpha = (
        image.transform((fine, fine), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR).reduce(SUPERSAMPLING)
        for image in (picture, alpha)
    )
    lay_over(canvas, from_image(picture) * np.linspace(1.05, rng.uniform(0.7, 1), size, dtype=np.float32)[:, None, None], from_image(alpha))


def _bytes(colour: Floats) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in np.clip(colour * 255, 0, 255))
    return red, green, blue


def highlights(rng: np.random.Generator, canvas: Floats) -> None:
    """Specular dots: small, bright, round or slightly long; drops, eyes, metal, lamps."""
    size = canvas.shape[0]
    for _ in range(rng.integers(3, 40)):
        radius = np.exp(rng.uniform(np.log(0.5), np.log(3.5)))
        reach = int(radius * 3) + 2
        x, y = rng.integers(reach, size - reach, 2)
        line = np.arange(-reach, reach + 1, dtype=np.float32)
        squared = line[:, None] ** 2 * np.float32(rng.uniform(1, 3)) + line[None, :] ** 2
        glow = np.exp(-((squared / np.float32(radius**2)) ** np.float32(rng.uniform(0.6, 2)))) * np.float32(rng.uniform(0.3, 0.95))
        lay_over(canvas[y - reach : y + reach + 1, x - reach : x + reach + 1], np.ones(3, np.float32), glow)
