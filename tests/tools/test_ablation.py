"""The ablations' harness: a tiny student trained and measured, results kept, and a page that says what they show and no more."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kintsugi.core.degradation.fixed_modes import MODES
from kintsugi.training.recipe import load_recipe
from kintsugi.training.stages import stage_class
from PIL import Image

pytest.importorskip("skimage")

TINY = {
    "steps": 3, "batch": 1, "precision": "no", "checkpoint_every": 3, "validate_every": 3, "optimizers.student.warmup": 0,
    "phases": [{"until": 3, "weights": {"latent": 1.0}}],
    "data.source": "folder", "data.crop": 32, "data.workers": 0, "settings.channels": [16, 16, 16],
}  # fmt: skip


@pytest.fixture(scope="module")
def ablation() -> Iterator[ModuleType]:
    """tools/ablation.py, which is a script beside the package, and finds others beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
        yield importlib.import_module("ablation")


@pytest.fixture
def tiny(ablation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A study of one cell that trains for three steps, in the place of all others; small validation photos."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(tmp_path / "picture.png")
    study = replace(
        ablation.STUDIES["gendr"], recipe="mini-restorer", budget={**TINY, "data.folder": str(tmp_path)}, cells={"plain": {}}, claims=()
    )
    monkeypatch.setattr(ablation, "STUDIES", {"gendr": study})
    small = [photo[64:128, 64:128] for photo in ablation.validation_photos()[:2]]
    monkeypatch.setattr(ablation, "validation_photos", lambda: small)
    return study


def paths(tmp_path: Path) -> list[str]:
    return ["--results", str(tmp_path / "ablations"), "--runs", str(tmp_path / "runs")]


def test_a_cell_is_trained_measured_and_told(ablation: ModuleType, tiny: Any, tmp_path: Path) -> None:
    assert ablation.main(["gendr/plain", "--seeds", "5", *paths(tmp_path)]) == 0
    result = json.loads((tmp_path / "ablations/gendr/plain-seed5.json").read_text())
    assert (result["cell"], result["seed"], result["steps"], result["pictures"]) == ("gendr/plain", 5, 3, 3)
    assert result["overrides"]["seed"] == 5 and result["recipe"] == "mini-restorer"
    assert [(row["mode"], row["name"]) for row in result["rows"]] == [(mode, name) for mode in MODES for name in ("input", "student")]
    assert result["log"]["step"] == [1, 2, 3] and len(result["log"]["latent"]) == 3
    page = (tmp_path / "ablations.md").read_text()
    assert "| plain | 1 |" in page and "Budget: 3 steps, 3 crops." in page


def test_a_result_that_exists_is_kept_and_made_anew_when_asked(ablation: ModuleType, tiny: Any, tmp_path: Path) -> None:
    arguments = ["gendr/plain", "--seeds", "5", *paths(tmp_path)]
    ablation.main(arguments)
    path = tmp_path / "ablations/gendr/plain-seed5.json"
    first = path.read_text()
    path.write_text(first.replace('"cell"', '"kept": true,\n "cell"'))
    ablation.main(arguments)
    assert "kept" in path.read_text()
    ablation.main([*arguments, "--again"])
    anew = json.loads(path.read_text())
    assert "kept" not in anew and anew["rows"] == json.loads(first)["rows"], "the same seed gives the same student"


def test_a_log_of_any_length_becomes_a_few_dozen_means(ablation: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    rows = [f"{step},{step % 2},{'' if step <= 500 else 3.0},{step / 10}" for step in range(1, 1001)]
    log.write_text("\n".join(["step,a,late,seconds", *rows]) + "\n")
    found = ablation.condensed(log, 10)
    assert found["step"] == [100 * part for part in range(1, 11)] and found["seconds"][-1] == 100
    assert found["a"] == [0.5] * 10
    assert found["late"] == [None] * 5 + [3.0] * 5


def test_an_unknown_cell_and_a_changed_recipe_among_the_results_are_refused(ablation: ModuleType) -> None:
    for arguments in (["tsd-sr/nonsense"], ["tsd-sr/full", "--set", "steps=2"]):
        with pytest.raises(SystemExit):
            ablation.main(arguments)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([0.2, 0.1, 0.3], "as the paper (+0.20)"),
        ([-0.2, -0.1], "the other way (-0.15)"),
        ([0.3, -0.1], "undecided (+0.10)"),
        ([], "not measured"),
    ],
)
def test_a_verdict_needs_every_seed(ablation: ModuleType, found: list[float], expected: str) -> None:
    assert importlib.import_module("ablation_page").verdict(found) == expected


def made_up(cell: str, seed: int, swd: float) -> dict[str, Any]:
    rows = [
        {"mode": mode, "name": name, "psnr": 27.0, "ssim": 0.8, "swd": swd, "grid": 1.0} for mode in MODES for name in ("input", "student")
    ]
    facts = {"recipe": "mini", "steps": 9, "pictures": 90, "minutes": seed, "machine": "a machine", "code": "1"}
    return {"cell": cell, "seed": seed, "rows": rows, **facts}


def test_the_page_has_means_spreads_and_what_the_paper_found(ablation: ModuleType) -> None:
    study = ablation.STUDIES["tsd-sr"]
    results = [
        made_up(f"tsd-sr/{cell}", seed, swd + seed / 10) for cell, swd in (("full", 9.0), ("without-tsm", 9.5)) for seed in (1, 2, 3)
    ]
    text = importlib.import_module("ablation_page").page({"tsd-sr": study}, results)
    assert "| full | 3 | 27.00 ± 0.00 (27.00 to 27.00) | 0.8000 ± 0.0000 (0.8000 to 0.8000) | 9.20 ± 0.10 (9.10 to 9.30) |" in text
    assert "as the paper (+0.50)" in text and "not measured" in text
    assert "2.0 minutes a run (1.0 to 3.0, 12 in all 6) on a machine" in text


def test_every_cell_is_a_recipe_whose_stage_and_losses_exist(ablation: ModuleType) -> None:
    for name in ablation.cell_names():
        method, _, cell = name.partition("/")
        study = ablation.STUDIES[method]
        recipe = load_recipe(study.recipe, {key: json.dumps(value) for key, value in study.overrides(cell, 1).items()})
        stage = stage_class(recipe.stage)
        stage.Settings.model_validate(recipe.settings)
        known = {loss for losses in stage.turns.values() for loss in losses}
        assert {loss for phase in recipe.phases for loss in phase.weights} <= known
        assert recipe.phases[-1].until == recipe.steps
        assert {claim_cell for claim in study.claims for claim_cell in (claim.better, claim.worse)} <= study.cells.keys()
