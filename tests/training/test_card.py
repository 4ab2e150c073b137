"""The card beside what a run exports: nothing that a person would have to ask for is missing, and nothing private is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from kintsugi import __version__
from kintsugi.core.weights.catalogue import RELEASES
from kintsugi.core.weights.embedded import FOLDER
from kintsugi.training.card import BEGINNINGS, FOUNDATIONS, SD21, Run, licence, machine, model_card
from kintsugi.training.recipe import RECIPES, Recipe, load_recipe
from kintsugi.training.stages import STAGES, stage_class

RUN = Run(steps=120, seconds=600, metrics={"low_quality": 25.5, "restored": 27.25}, crops=8, processes=2, device=torch.device("cpu"))


def standing_on(base: str, stage: str) -> Recipe:
    """The stage's mini recipe, begun with something else."""
    settings = stage_class(stage).Settings.model_fields
    begun = next(name for name in BEGINNINGS if name in settings)
    return load_recipe(f"mini-{stage}", {f"settings.{begun}": base})


def test_it_says_how_when_where_and_with_what_code_a_file_was_made() -> None:
    card = model_card(load_recipe("mini-restorer", {"accumulate": "3"}), RUN)
    assert card.startswith("# gendr-restorer\n")
    assert "120 steps of 96 crops, 10 minutes" in card
    assert re.search(r"^- Machine: 2 processes on .+, \d+ threads each\.$", card, re.MULTILINE)
    assert f"- Code: kintsugi-restoration {__version__}" in card
    assert "source `procedural`" in card and "degraded by `mild`" in card and "crops of 96 x 96 pixels" in card
    assert "| restored | 27.25 |" in card and "PSNR on 8 held-out crops" in card
    assert "accumulate: 3\n" in card


def test_a_persons_folders_stay_at_home(tmp_path: Path) -> None:
    folder = tmp_path / "holiday"
    recipe = load_recipe("mini-restorer", {"data.source": "folder", "data.folder": str(folder)})
    card = model_card(recipe, RUN)
    assert str(tmp_path) not in card and "folder: holiday\n" in card


def test_a_clone_names_its_commit() -> None:
    if (Path(__file__).parents[2] / ".git").exists():
        assert re.search(r"^- Code: .+, commit [0-9a-f]{12}(-dirty)?\.$", model_card(load_recipe("mini-vae"), RUN), re.MULTILINE)


def test_one_process_is_not_counted() -> None:
    assert re.fullmatch(r".+, \d+ threads", machine(torch.device("cpu"), 1))


@pytest.mark.parametrize(
    ("base", "stage", "expected"),
    [
        ("embedded", "tsd-sr", "Apache-2.0; no published weights"),
        ("auto", "tsd-sr", "sd3-medium (Stability AI Community License)"),
        ("flux1-dev.safetensors", "fluxir", "flux-dev (FLUX.1 [dev] Non-Commercial License)"),
        ("auto", "instantir-dcp", "sdxl (CreativeML Open RAIL++-M); dinov2-large (Apache-2.0)"),
        ("auto", "instarevive", "pixart-alpha (CreativeML Open RAIL++-M)"),
        ("auto", "gendr", SD21),
    ],
)
def test_the_licence_of_what_it_stands_on_holds_too(base: str, stage: str, expected: str) -> None:
    assert expected in licence(standing_on(base, stage))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("- Licence: Apache-2.0; no published weights went in.", "Apache-2.0; no published weights went in"),
        ("- Licence: of a base.", "of a base"),
    ],
)
def test_what_begins_with_a_file_of_ours_has_its_licence(tmp_path: Path, line: str, expected: str) -> None:
    (tmp_path / "mini-flux.md").write_text(f"# mini-flux\n\n{line}\n")
    assert licence(standing_on(str(tmp_path / "mini-flux.safetensors"), "fluxir")) == expected


@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES.glob("mini-*.yaml")))
def test_what_begins_from_nothing_or_from_what_ships_is_ours(recipe: str) -> None:
    assert licence(load_recipe(recipe)) == "Apache-2.0; no published weights went in"


def test_cards_of_what_ships_name_nobody_elses_weights() -> None:
    told = {line for card in FOLDER.glob("mini-*.md") for line in card.read_text().splitlines() if line.startswith("- Licence: ")}
    assert told == {"- Licence: Apache-2.0; no published weights went in."}


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_that_begins_with_a_prior_names_it(stage: str) -> None:
    begins = {"base", "prior", "start"} & stage_class(stage).Settings.model_fields.keys()
    assert bool(begins) == (stage in FOUNDATIONS)


def test_every_foundation_has_a_licence() -> None:
    assert {base for bases in FOUNDATIONS.values() for base in bases} <= {release.name for release in RELEASES} | {SD21}
