"""docs/training.md keeps step with what can be trained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from kintsugi.training.recipe import recipe_names
from kintsugi.training.stages import STAGES

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
TABLE = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_every_stage_has_a_row(stage: str) -> None:
    assert [row for row in TABLE if row[0] == f"`{stage}`"]


def test_every_recipe_is_named_and_no_other() -> None:
    named = {name for row in TABLE if len(row) == 6 for column in row[1:3] for name in re.findall(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*", column)}
    assert named - {"from", "them"} == set(recipe_names())


def test_every_command_is_of_a_recipe_that_ships() -> None:
    commands = re.findall(r"^    kintsugi train ([a-z0-9-]+) ", PAGE, re.MULTILINE)
    assert commands and set(commands) <= set(recipe_names())
