"""The ablations that can be shown at mini size, as data: which recipe, what every cell changes in it, and what the paper found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quality_measure import AT_SCALE_1, Workflow

SEEDS = (1, 2, 3)

Weights = dict[str, float]


@dataclass(frozen=True)
class Claim:
    """The paper finds the first cell better than the second; `numbers` as it prints them."""

    better: str
    worse: str
    numbers: str


@dataclass(frozen=True)
class Study:
    """One table of one paper. method: whose student is measured. workflow, loader: what it is measured by, and the title of the node
    there that loads the student.

    budget: what is changed in the recipe for all cells, by dotted key; cells: what each changes further.
    """

    title: str
    source: str
    method: str
    recipe: str
    workflow: Workflow
    loader: str
    budget: dict[str, Any]
    cells: dict[str, dict[str, Any]]
    claims: tuple[Claim, ...]
    note: str = ""

    def overrides(self, cell: str, seed: int) -> dict[str, Any]:
        """What a cell changes in its recipe, all told."""
        return {**self.budget, **self.cells[cell], "seed": seed}


REGRESSION, DISTILLATION = 60, 50  # steps
KEPT = {"batch": 4, "checkpoint_every": 50}


def budget(steps: int) -> dict[str, Any]:
    """What all cells of a study change in their recipe."""
    return {**KEPT, "steps": steps, "validate_every": steps}


def after_regression(regression: Weights, then: Weights) -> dict[str, Any]:
    """A student that first learns to restore at all, cheaply, and then by what is compared."""
    until = REGRESSION + DISTILLATION
    return {"phases": [{"until": REGRESSION, "weights": regression}, {"until": until, "weights": then}]}


def at_once(weights: Weights) -> dict[str, Any]:
    """For a student that restores already."""
    return {"phases": [{"until": DISTILLATION, "weights": weights}]}


# Regression is of latents alone, since a decoder would cost more than the rest; what is compared counts several times as much as in the
# mini recipes, to be seen after so few steps.
REGRESSED: Weights = {"latent": 1.0}
TSD_START: Weights = {**REGRESSED, "auxiliary": 1.0}
TSD_THEN: Weights = {"latent": 0.1, "auxiliary": 1.0}
DISTILLED = 5.0
SCORE: Weights = {"score": 1.0, "denoising": 1.0}

STUDIES: dict[str, Study] = {
    "tsd-sr": Study(
        title="TSD-SR: target score matching and distribution-aware sampling",
        source="Table 4",
        method="tsd-sr",
        recipe="mini-tsd-sr",
        workflow=Workflow("tsd_sr", values=AT_SCALE_1),
        loader="Load TSD-SR",
        budget=budget(REGRESSION + DISTILLATION),
        cells={
            "full": after_regression(TSD_START, {**TSD_THEN, "dasm": DISTILLED}),
            "without-tsm": {**after_regression(TSD_START, {**TSD_THEN, "dasm": DISTILLED}), "settings.balance": 1.0},
            "without-dasm": after_regression(TSD_START, {**TSD_THEN, "tsd": DISTILLED}),
        },
        claims=(
            Claim("full", "without-tsm", "LPIPS 0.2967 against 0.3176, FID 134.98 against 139.67 (DRealSR)"),
            Claim("full", "without-dasm", "LPIPS 0.2967 against 0.3097, FID 134.98 against 143.97 (DRealSR)"),
        ),
        note="`full` distils along a trajectory of four noise levels by VSD and target score matching; `without-tsm` by VSD alone "
        "(lambda 1 in equation 5); `without-dasm` at one noise level. All learn latents by regression first. "
        "Then the distillation weighs fifty times what regression does: with the mini recipe's weights so few steps show nothing of it.",
    ),
    "gendr": Study(
        title="GenDR: four ways of distilling",
        source="Table 4",
        method="gendr",
        recipe="mini-gendr",
        workflow=Workflow("gendr", values=AT_SCALE_1),
        loader="Load GenDR",
        budget={**budget(DISTILLATION), "optimizers.generator.learning_rate": 1.0e-4},
        cells={
            "vsd": at_once({"vsd": 1.0, "fake_noise": 1.0}),
            "sid": at_once({"sid": 1.0, "fake_noise": 1.0}),
            "cid": at_once({"cid": 1.0, "fake": 1.0, "real": 1.0}),
            "cida": at_once({"cid": 1.0, "adversarial": 0.01, "repa": 0.1, "fake": 1.0, "real": 1.0, "discriminator": 1.0}),
        },
        claims=(
            Claim("sid", "vsd", "MUSIQ 69.33 against 68.82, CLIPIQA 0.7016 against 0.6911 (RealSet80)"),
            Claim("cid", "sid", "MUSIQ 70.61 against 69.33, CLIPIQA 0.7150 against 0.7016 (RealSet80)"),
            Claim("cida", "cid", "MUSIQ 71.57 against 70.61, CLIPIQA 0.7424 against 0.7150 (RealSet80)"),
        ),
        note="All begin with the embedded restorer `mini-gendr`, which was trained by regression, and have no regression loss of their "
        "own, as in the paper. The generator's rate is five times that of the mini recipe.",
    ),
    "instarevive": Study(
        title="InstaRevive: dynamic control and the score loss",
        source="Table 3",
        method="instarevive",
        recipe="mini-instarevive",
        workflow=Workflow("instarevive_photo", values=AT_SCALE_1, bypassed="KintsugiPreRestore"),
        loader="Load InstaRevive",
        budget={**budget(DISTILLATION), "settings.start": "embedded"},
        cells={
            "full": at_once(REGRESSED | SCORE),
            "without-dynamic": {**at_once(REGRESSED | SCORE), "settings.dynamic": False},
            "without-score": at_once(REGRESSED),
        },
        claims=(
            Claim("full", "without-dynamic", "FID 19.78 against 22.43 (CelebA), MANIQA 0.4722 against 0.4463 (RealSR)"),
            Claim("full", "without-score", "FID 19.78 against 26.45 (CelebA), MANIQA 0.4722 against 0.4259 (RealSR)"),
            Claim("without-dynamic", "without-score", "FID 22.43 against 26.45 (CelebA), MANIQA 0.4463 against 0.4259 (RealSR)"),
        ),
        note="Measured without the SwinIR that goes before it in its workflow, so that the student alone is seen. All begin with the "
        "embedded `mini-instarevive`, which was trained by regression and, for its last 150 steps, by the score as well; "
        "`without-dynamic` draws noise from the whole range and weighs regression and score alike.",
    ),
}
