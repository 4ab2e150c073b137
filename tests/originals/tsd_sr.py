"""TSD-SR as its release runs it, written once more: diffusers networks, adapters of peft that are not merged, plain loops.

Nothing of ours is used here, so that what agrees with it agrees with the original.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from golden_files import GOLDEN
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

MANIFEST = GOLDEN / "tsd-sr" / "manifest.json"


def random_networks(transformer: dict[str, Any], vae: dict[str, Any]) -> tuple[Any, Any]:
    """The two networks of those configurations, drawn, norms too; the table of positions stays."""
    from diffusers import AutoencoderKL, SD3Transformer2DModel

    networks = SD3Transformer2DModel.from_config(transformer).eval(), AutoencoderKL.from_config(vae).eval()
    for network in networks:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(False)
            if parameter.ndim == 1:
                parameter.copy_((1.0 if "norm" in name and name.endswith("weight") else 0.0) + 0.1 * torch.randn_like(parameter))
    return networks


def add_adapter(network: Any, targets: list[str], rank: int, alpha: int) -> dict[str, Tensor]:
    """Put a drawn adapter on the network, beside its weights; what the release's save call would write of it."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    network.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets))
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            parameter.requires_grad_(False).copy_(torch.randn_like(parameter) / (4 * parameter[0].numel() ** 0.5))
    return {f"transformer.{name}": tensor.clone() for name, tensor in get_peft_model_state_dict(network).items()}


@dataclass(frozen=True)
class Original:
    """The networks with their adapters, the stored prompt, and the script's options."""

    transformer: Any
    vae: Any
    prompt: Tensor
    pooled: Tensor
    upscale: int = 4
    process_size: int = 512
    latent_tile: int = 64
    latent_overlap: int = 8

    def velocity(self, latent: Tensor) -> Tensor:
        """latent: scaling * z, never shifted."""
        return self.transformer(latent, self.prompt, self.pooled, torch.tensor([1000.0])).sample

    def tiled_velocity(self, latent: Tensor, tile: int, overlap: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The blended velocity and how it was tiled."""
        height, width = latent.shape[-2:]
        tile = min(tile, height, width)
        xs, ys = ([min(i * (tile - overlap), n - tile) for i in range(ceil((n - tile) / (tile - overlap)) + 1)] for n in (width, height))
        mask = np.array([[gauss(y, tile / 2, tile) * gauss(x, (tile - 1) / 2, tile) for x in range(tile)] for y in range(tile)])
        total, weight = torch.zeros_like(latent), torch.zeros(height, width)
        for y in ys:
            for x in xs:
                total[..., y : y + tile, x : x + tile] += self.velocity(latent[..., y : y + tile, x : x + tile]) * torch.from_numpy(mask)
                weight[y : y + tile, x : x + tile] += torch.from_numpy(mask)
        return total / weight, {"tile_weights": torch.from_numpy(mask), "tile_x": torch.tensor(xs), "tile_y": torch.tensor(ys)}

    def restore(self, source: np.ndarray, noise: Tensor) -> dict[str, Tensor]:
        """Every quantity of the path from an 8-bit source [h, w, 3] to the three results."""
        scale = self.vae.config.scaling_factor
        height, width, resized = self.working_size(*source.shape[:2])
        pixels = F.interpolate(torch.from_numpy(source).permute(2, 0, 1)[None] / 255, (height, width), mode="bicubic")
        pixels = (2 * pixels - 1).clamp(-1, 1)
        mean, log_variance = self.vae.encode(pixels).latent_dist.parameters.chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        latent = (mean + (0.5 * log_variance).exp() * noise) * scale
        tiled = latent.shape[-2] * latent.shape[-1] > self.latent_tile**2
        velocity, tiling = self.tiled_velocity(latent, self.latent_tile, self.latent_overlap) if tiled else (self.velocity(latent), {})
        image = self.vae.decode((latent - velocity) / scale).sample.clamp(-1, 1)[0]
        result = Image.fromarray(truncated((image / 2 + 0.5).permute(1, 2, 0).numpy()))
        if resized:
            result = result.resize((source.shape[1] * self.upscale, source.shape[0] * self.upscale))
        fixed = {"nofix": np.array(result), **self.fixes(np.array(result), source)}
        return {
            "main_size": torch.tensor([height, width]), "pixel_values": pixels, "latent_mean": mean, "latent_logvar": log_variance,
            "model_input": latent, "model_pred": velocity, "model_pred_untiled": self.velocity(latent),
            "latent_student": latent - velocity, "image": image, **tiling,
            **{f"out_{name}": torch.from_numpy(picture) for name, picture in fixed.items()},
        }  # fmt: skip

    def working_size(self, height: int, width: int) -> tuple[int, int, bool]:
        least, resized = self.process_size // self.upscale, False
        if width < least or height < least:
            factor = least / min(width, height)
            height, width, resized = int(factor * height), int(factor * width), True
        height, width = height * self.upscale, width * self.upscale
        return height // 8 * 8, width // 8 * 8, resized or height % 8 > 0 or width % 8 > 0

    def fixes(self, picture: np.ndarray, source: np.ndarray) -> dict[str, np.ndarray]:
        style = np.array(Image.fromarray(source).resize((source.shape[1] * self.upscale, source.shape[0] * self.upscale)))
        target = picture / 255
        (high, _), (_, low) = bands(target), bands(style / 255)
        small = source / 255
        own, other = target.reshape(-1, 3), small.reshape(-1, 3)
        deviations = [np.sqrt(pixels.var(axis=0, ddof=1) + 1e-5) for pixels in (own, other)]
        adain = (target - own.mean(axis=0)) / deviations[0] * deviations[1] + other.mean(axis=0)
        return {"wavelet": truncated(high + low), "adain": truncated(adain)}


def gauss(position: float, centre: float, tile: int) -> float:
    return float(np.exp(-((position - centre) ** 2) / (tile**2 * 2 * 0.01)) / np.sqrt(2 * np.pi * 0.01))


def bands(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the five high bands and the rest, of [H, W, 3]."""
    high = np.zeros_like(picture)
    for radius in (1, 2, 4, 8, 16):
        padded = np.pad(picture, ((radius, radius), (radius, radius), (0, 0)), mode="edge")
        blurred = np.zeros_like(picture)
        for row, vertical in enumerate((1, 2, 1)):
            for column, horizontal in enumerate((1, 2, 1)):
                window = padded[row * radius : row * radius + len(picture), column * radius : column * radius + picture.shape[1]]
                blurred += vertical * horizontal / 16 * window
        high, picture = high + picture - blurred, blurred
    return high, picture


def truncated(picture: np.ndarray) -> np.ndarray:
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)
