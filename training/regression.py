"""What holds a restored latent, and the picture decoded of it, to the clean ones: the losses that one-step students share."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ..core.errors import RecipeError
from .latents import Autoencoder
from .losses import gradient_loss, latent_mse, pixel_loss
from .lpips import WAY_OUT

Comparison = Callable[[Tensor, Tensor], Tensor]


def regression_losses(
    restored: Tensor, clean: Tensor, pictures: Tensor, vae: Autoencoder, wanted: frozenset[str], perceptual: Comparison | None = None
) -> dict[str, Tensor]:
    """Those of `latent`, `pixel`, `gradient` and `lpips` that are wanted; the decoder runs for the last three alone.

    restored, clean: scaled latents [B, C, h, w]; pictures: the clean ones [B, 3, H, W] in 0..1; perceptual: see perceptual_loss().
    """
    found = {"latent": latent_mse(restored, clean)} if "latent" in wanted else {}
    forms: dict[str, Comparison] = {"pixel": pixel_loss, "gradient": gradient_loss}
    if perceptual is not None:
        forms["lpips"] = perceptual
    asked = [name for name in forms if name in wanted]
    if asked:
        output = vae.decode(restored)
        found |= {name: forms[name](output, pictures) for name in asked}
    return found


def perceptual_loss(lpips: nn.Module | None, clamped: bool = False) -> Comparison:
    """LPIPS of pictures [B, 3, H, W] in 0..1, mean over the batch. clamped: bring the output into 0..1 first. The comparison raises
    RecipeError where there are no weights."""

    def compare(output: Tensor, target: Tensor) -> Tensor:
        if lpips is None:
            raise RecipeError("the loss `lpips` has no weights.", where="settings.lpips", way_out=WAY_OUT)
        distances: Tensor = lpips(output.clamp(0, 1) if clamped else output, target)
        return distances.mean()

    return compare
