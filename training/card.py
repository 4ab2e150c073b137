"""The model card that is written beside what a run exports."""

from __future__ import annotations

import yaml

from .recipe import Recipe


def model_card(recipe: Recipe, steps: int, seconds: float, metrics: dict[str, float], crops: int) -> str:
    """Markdown: recipe, data, steps, time and what held-out crops reached (PSNR in dB by picture)."""
    reached = "\n".join(f"| {name} | {value:.2f} |" for name, value in metrics.items())
    settings = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    return (
        f"# {recipe.stage}\n\n"
        f"Made by `kintsugi train` in {steps} steps of {recipe.batch * recipe.accumulate} crops, {seconds / 60:.0f} minutes.\n\n"
        f"PSNR on {crops} held-out crops (dB):\n\n| picture | PSNR |\n|---|---|\n{reached}\n\n"
        f"Recipe:\n\n```yaml\n{settings}```\n"
    )
