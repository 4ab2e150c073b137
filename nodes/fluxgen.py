"""Nodes that let Flux draw training pictures and keep the good ones."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..core.errors import BadValueError
from ..core.methods.fluxgen import Drawing, generate
from ..core.models.prior import Prior
from ..core.quality import METRICS, PYIQA_PREFIX, measure
from ..core.runtime import current_host
from ..core.selection import PERCENTILE, select, selection_metrics
from .quality import QUALITY, numbered, planes, report_line, scores
from .sockets import PRIOR, InputTypes, integer, number, seed, socket, text

CATEGORY = "image/restoration/data"


class KintsugiFluxGen:
    DISPLAY_NAME = "Draw Training Pictures (FluxGen)"
    DESCRIPTION = "Let Flux draw pictures by itself, to train a restorer on. The paper draws them from an empty prompt."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["flux", "text to image", "generate", "data set", "synthetic data", "FluxIR"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("IMAGE",), ("images",), "draw"
    OUTPUT_TOOLTIPS = ("The pictures, a batch of one size.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "prior": socket(PRIOR, "A Flux from a Load Prior node."),
                "prompt": text("", "What the pictures show. Empty lets Flux draw what it likes, as the paper does.", multiline=True),
                "width": integer(1024, 64, 4096, "Pixels across; the paper has 1024.", step=16),
                "height": integer(768, 64, 4096, "Pixels down; the paper has 768.", step=16),
                "count": integer(4, 1, 256, "How many pictures."),
                "steps": integer(20, 1, 200, "Steps from noise to picture, each a call of the whole Flux."),
                "guidance": number(4.0, 0.0, 30.0, "The guidance scale that Flux is told; FLUX.1-schnell does not listen.", step=0.1),
                "seed": seed(),
            }
        }

    def draw(self, prior: Prior, prompt: str, width: int, height: int, count: int, steps: int, guidance: float, seed: int) -> tuple[Tensor]:
        return (generate(prior, prompt, seed, Drawing(width, height, steps, guidance), count),)


class KintsugiSelectByQuality:
    DISPLAY_NAME = "Select by Quality (percentiles)"
    DESCRIPTION = "Keep the pictures of a batch that are among the best by every one of some measures."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["filter", "best of batch", "iqa", "percentile", "FluxGen", "CLIP-IQA", "MUSIQ", "MANIQA"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("IMAGE", "STRING"), ("images", "report"), "select"
    OUTPUT_TOOLTIPS = ("The kept pictures, in their order.", "What had to be reached, and a line for each picture.")
    # The chart is sent again when the node did not need to run again.
    HAS_INTERMEDIATE_OUTPUT = True

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        alone = [name for name, metric in METRICS.items() if not metric.needs_reference]
        return {
            "required": {
                "image": socket("IMAGE", "The pictures to choose from; the more, the more a percentile means."),
                "metrics": text(
                    "",
                    f"Names, separated by commas: {', '.join(alone)}, or {PYIQA_PREFIX}NAME of the optional package pyiqa. Empty chooses "
                    "CLIP-IQA, MUSIQ and MANIQA where pyiqa has them, else measures without weights (the log says which).",
                ),
                "keep": number(
                    100 - PERCENTILE,
                    0.0,
                    100.0,
                    "Percent that each measure lets pass, the best ones. A picture must pass by all of them, so fewer are kept.",
                    step=0.5,
                ),
            }
        }

    def select(self, image: Tensor, metrics: str, keep: float) -> dict[str, Any]:
        better = selection_metrics(metrics)
        rows = []
        for picture in image:
            current_host().check_interrupted()
            rows.append(measure(planes(picture), None, tuple(better)))
        selection = select(rows, better, 100 - keep)
        if not selection.kept:
            raise BadValueError(
                f"None of {len(rows)} pictures passes by all of {', '.join(better)}.", way_out="Raise keep, or choose fewer measures."
            )
        verdicts = (f"{'kept' if place in selection.kept else 'dropped'}, {report_line(row)}" for place, row in enumerate(rows))
        bounds = (f"{name} {bound}" for name, bound in selection.bounds.items())
        head = f"{len(selection.kept)} of {len(rows)} kept: {', '.join(bounds)}"
        report = "\n".join([head, *numbered(list(verdicts))])
        chart = [scores(row, kept=place in selection.kept) for place, row in enumerate(rows)]
        return {"ui": {QUALITY: chart}, "result": (image[list(selection.kept)], report)}


NODES: tuple[Any, ...] = (KintsugiFluxGen, KintsugiSelectByQuality)
