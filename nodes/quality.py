"""Nodes that measure pictures and put them side by side."""

from __future__ import annotations

from math import isfinite
from typing import Any, cast

import torch
from torch import Tensor

from ..core.errors import BadValueError
from ..core.file_names import next_file_names
from ..core.imaging.contact_sheet import contact_sheet
from ..core.imaging.resize import resize
from ..core.imaging.writing import write_photo
from ..core.picture_files import shown
from ..core.quality import METRICS, PYIQA_PREFIX, find_metric, measure, parse_metrics
from ..core.runtime import current_host
from .photo import workflow_texts
from .sockets import InputTypes, integer, socket, text

CATEGORY = "image/restoration/quality"
# What `web/quality_chart.js` draws and `web/compare_slider.js` shows, one entry for each picture.
QUALITY, COMPARED = "kintsugi_quality", "kintsugi_compare"


class KintsugiMeasureQuality:
    DISPLAY_NAME = "Measure Quality (PSNR, SSIM and others)"
    DESCRIPTION = "Numbers for how good pictures are: against a reference of the same size, or alone."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["psnr", "ssim", "ms-ssim", "metric", "score", "iqa", "sharpness", "noise"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION, OUTPUT_NODE = ("STRING", "FLOAT"), ("report", "value"), "measure", True
    OUTPUT_TOOLTIPS = ("A line for each picture, and the mean of a batch.", "The first measure, averaged over the pictures.")

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        alone = [name for name, metric in METRICS.items() if not metric.needs_reference]
        compared = [name for name, metric in METRICS.items() if metric.needs_reference]
        return {
            "required": {
                "image": socket("IMAGE", "The pictures to measure."),
                "metrics": text(
                    "",
                    f"Names, separated by commas. With a reference: {', '.join(compared)}. Without: {', '.join(alone)}. "
                    f"{PYIQA_PREFIX}NAME asks the optional package pyiqa. Empty chooses a sensible few.",
                ),
            },
            "optional": {"reference": socket("IMAGE", "The undamaged pictures, of the same size: one, or one for each.")},
        }

    def measure(self, image: Tensor, metrics: str, reference: Tensor | None = None) -> dict[str, Any]:
        names = parse_metrics(metrics, reference is not None)
        rows = []
        for index in range(image.shape[0]):
            current_host().check_interrupted()
            compared = None if reference is None else planes(nth(reference, index, image.shape[0]))
            rows.append(measure(planes(image[index]), compared, names))
        means = {name: sum(row[name] for row in rows) / len(rows) for name in names}
        lines = [report_line(row) for row in rows]
        report = lines[0] if len(lines) == 1 else "\n".join([*numbered(lines), f"mean: {report_line(means)}"])
        return {"ui": {"text": [report], QUALITY: [scores(row) for row in rows]}, "result": (report, means[names[0]])}


class KintsugiCompare:
    DISPLAY_NAME = "Compare Before and After"
    DESCRIPTION = "A slider between two pictures. Writes them side by side as a PNG, the first scaled to the second's size."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["before after", "slider", "side by side", "difference"]
    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "compare", True
    OUTPUT_TOOLTIPS = ()

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "before": socket("IMAGE", "The pictures as they were; one, or one for each."),
                "after": socket("IMAGE", "The pictures as they became."),
                "filename_prefix": text("compare", "Start of the file names in the output folder; may name a subfolder."),
            },
            "hidden": cast(Any, {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}),
        }

    def compare(
        self,
        before: Tensor,
        after: Tensor,
        filename_prefix: str,
        prompt: dict[str, Any] | None = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        folder = current_host().folders.output
        count, height, width = after.shape[:3]
        paths = next_file_names(folder, filename_prefix, 2 * width, height, count)
        for index, path in enumerate(paths):
            left = resize(planes(nth(before, index, count)), height, width, "bicubic").clamp(0, 1)
            pair = torch.cat([left, planes(after[index]).to(left.device)], dim=3)
            write_photo(path, pair.movedim(1, 3), metadata=workflow_texts(prompt, extra_pnginfo), overwrite=False)
        entries = [shown(path, folder) for path in paths]
        return {"ui": {"images": entries, COMPARED: entries}}


class KintsugiContactSheet:
    DISPLAY_NAME = "Lay Out Contact Sheet"
    DESCRIPTION = "Put the pictures of a batch side by side on one sheet, row by row."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["grid", "image grid", "tile batch", "montage", "previews over time"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("IMAGE",), ("sheet",), "lay_out"
    OUTPUT_TOOLTIPS = ("The sheet, a single picture; free places are white.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "image": socket("IMAGE", "The pictures, a batch of one size."),
                "columns": integer(5, 1, 64, "How many pictures stand in a row; fewer pictures make a shorter row."),
                "gap": integer(8, 0, 256, "White pixels between neighbours."),
            }
        }

    def lay_out(self, image: Tensor, columns: int, gap: int) -> tuple[Tensor]:
        return (contact_sheet(image, columns, gap),)


def planes(picture: Tensor) -> Tensor:
    """[H, W, C] -> [1, 3, H, W]."""
    return picture[..., :3].movedim(2, 0)[None]


def nth(pictures: Tensor, index: int, count: int) -> Tensor:
    """Picture `index` of as many as there are on the other side, or the only one."""
    if pictures.shape[0] not in (1, count):
        raise BadValueError(f"{pictures.shape[0]} pictures for {count}.", way_out="Give one, or one for each.")
    return pictures[min(index, pictures.shape[0] - 1)]


def report_line(values: dict[str, float]) -> str:
    """`psnr 27.41 dB, ssim 0.8312`."""
    return ", ".join(f"{name} {value:.4f} {find_metric(name).unit}".rstrip() for name, value in values.items())


def scores(values: dict[str, float], **about: Any) -> dict[str, Any]:
    """One picture's numbers for the chart. A value that is not finite is its word, as JSON has no number for it."""
    entries = []
    for name, value in values.items():
        metric = find_metric(name)
        shown_value = value if isfinite(value) else str(value)
        entries.append({"metric": name, "value": shown_value, "unit": metric.unit, "higher_is_better": metric.higher_is_better})
    return {**about, "scores": entries}


def numbered(lines: list[str]) -> list[str]:
    return [f"{index}: {line}" for index, line in enumerate(lines, 1)]


NODES: tuple[type, ...] = (KintsugiMeasureQuality, KintsugiCompare, KintsugiContactSheet)
