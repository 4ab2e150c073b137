"""Draw the pack's icon, a dark bowl mended with gold: web/icon.svg, and web/icon.png for those who want pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

WEB = Path(__file__).parent.parent / "web"
SIDE, TOP = 400, 22
SHARPNESS = 4  # the PNG is drawn this many times larger, then shrunk

Point = tuple[float, float]

PAPER, CLAY, INSIDE, RIM, GOLD, SHINE = "#f3ede1", "#2f3640", "#1b2027", "#4b5563", "#d9a441", "#f3d68a"
CENTER, RADIUS, FLATNESS, DEPTH = (200.0, 150.0), 160.0, 0.26, 165.0
# The seams run from the rim, where the bowl broke, to where the shards meet; the last two are inside.
SEAMS: tuple[tuple[Point, ...], ...] = (
    ((128, 187), (148, 214), (140, 240), (176, 262), (206, 248)),
    ((206, 248), (238, 266), (232, 290), (244, 312)),
    ((206, 248), (232, 222), (262, 226), (288, 200), (316, 179)),
    ((176, 262), (160, 286), (166, 304)),
    ((128, 187), (150, 172), (142, 152), (168, 138), (178, 110)),
    ((316, 179), (290, 164), (296, 142), (276, 118)),
)
DROPS: tuple[Point, ...] = ((206, 248), (176, 262))


def rim() -> list[Point]:
    return ellipse(RADIUS, RADIUS * FLATNESS)


def opening() -> list[Point]:
    return ellipse(RADIUS - 9, (RADIUS - 9) * FLATNESS)


def ellipse(across: float, down: float) -> list[Point]:
    turns = (2 * math.pi * step / 120 for step in range(120))
    return [(CENTER[0] + across * math.cos(turn), CENTER[1] + down * math.sin(turn)) for turn in turns]


def body() -> list[Point]:
    """The wall of the bowl, from rim to rim."""
    turns = [math.pi * step / 90 for step in range(91)]
    return [(CENTER[0] + RADIUS * math.cos(turn), CENTER[1] + DEPTH * math.sin(turn) ** 0.8) for turn in turns]


def foot() -> list[Point]:
    return [(146, 298), (254, 298), (264, 336), (136, 336)]


def shapes() -> list[tuple[str, Sequence[Point]]]:
    """Filled outlines, from the back to the front."""
    return [(INSIDE, foot()), (CLAY, body()), (RIM, rim()), (INSIDE, opening())]


def strokes() -> list[tuple[str, float, Sequence[Point]]]:
    """Colour, width and points of the seams: gold, and a thin shine on it."""
    return [(GOLD, 11, seam) for seam in SEAMS] + [(SHINE, 3.5, seam) for seam in SEAMS]


def svg() -> str:
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {TOP} {SIDE} {SIDE}">', "<title>Kintsugi</title>"]
    lines.append(f'<rect y="{TOP}" width="{SIDE}" height="{SIDE}" rx="60" fill="{PAPER}"/>')
    lines += [f'<polygon fill="{color}" points="{listed(points)}"/>' for color, points in shapes()]
    style = 'fill="none" stroke-linejoin="round" stroke-linecap="round"'
    lines += [
        f'<polyline {style} stroke="{color}" stroke-width="{width}" points="{listed(points)}"/>' for color, width, points in strokes()
    ]
    lines += [f'<circle fill="{GOLD}" cx="{x}" cy="{y}" r="9"/>' for x, y in DROPS]
    return "\n".join([*lines, "</svg>", ""])


def listed(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.4g},{y:.4g}" for x, y in points)


def png() -> Image.Image:
    canvas = Image.new("RGBA", (SIDE * SHARPNESS, SIDE * SHARPNESS))
    draw = ImageDraw.Draw(canvas)
    draw.rounded_rectangle((0, 0, *(side - 1 for side in canvas.size)), 60 * SHARPNESS, fill=PAPER)
    for color, points in shapes():
        draw.polygon(scaled(points), fill=color)
    for color, width, points in strokes():
        draw.line(scaled(points), fill=color, width=round(width * SHARPNESS), joint="curve")
        for point in points:
            dot(draw, point, width / 2, color)
    for point in DROPS:
        dot(draw, point, 9, GOLD)
    return canvas.resize((SIDE, SIDE), Image.Resampling.LANCZOS).quantize(64, Image.Quantize.FASTOCTREE)


def dot(draw: ImageDraw.ImageDraw, at: Point, radius: float, color: str) -> None:
    draw.ellipse([(value + side * radius) * SHARPNESS for side in (-1, 1) for value in (at[0], at[1] - TOP)], fill=color)


def scaled(points: Sequence[Point]) -> list[Point]:
    return [(x * SHARPNESS, (y - TOP) * SHARPNESS) for x, y in points]


def main() -> None:
    (WEB / "icon.svg").write_text(svg(), encoding="utf-8")
    png().save(WEB / "icon.png", optimize=True)


if __name__ == "__main__":
    main()
