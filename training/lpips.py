"""LPIPS v0.1: how different two pictures look, as the distance of their features in a network trained on other pictures.

"The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (CVPR 2018), equation 1. Nobody's weights ship here. The
published pickles are torchvision's `alexnet-owt-7be5be79.pth` (or `vgg16-397923af.pth`) and, from the package lpips,
`lpips/weights/v0.1/alex.pth` (or `vgg.pth`); each is converted once, and a recipe is told the folder of both:

    kintsugi convert alexnet-owt-7be5be79.pth lpips/backbone.safetensors
    kintsugi convert alex.pth lpips/heads.safetensors
    kintsugi train RECIPE -o RUN --set settings.lpips=lpips
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import RecipeError, WeightsError
from ..core.models.codec import as_pixels
from ..core.weights.files import build_network, read_weights

Backbone = Literal["alexnet", "vgg16"]

# ImageNet's mean and deviation per channel, for values in -1..1, as published.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# Added to the length of a feature vector before it is divided by it.
SMALLEST_LENGTH = 1e-10
# Where features are taken: the activations by their place in torchvision's `features`, and their channels.
TAPS: dict[Backbone, dict[int, int]] = {
    "alexnet": {1: 64, 4: 192, 7: 384, 9: 256, 11: 256},
    "vgg16": {3: 64, 8: 128, 15: 256, 22: 512, 29: 512},
}
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
SMALLEST_SIDE: dict[Backbone, int] = {"alexnet": 31, "vgg16": 16}
WAY_OUT = "Convert torchvision's AlexNet or VGG16 and the package lpips' heads of it (v0.1) into one folder: see training/lpips.py."


class Lpips(nn.Module):
    """The frozen distance; its tensors have the published names, `features.N.*` and `lin<N>.model.1.weight`."""

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: Backbone = "alexnet") -> None:
        super().__init__()
        self.backbone = backbone
        self.features = _alexnet() if backbone == "alexnet" else _vgg16()
        for index, channels in enumerate(TAPS[backbone].values()):
            self.add_module(f"lin{index}", _Head(channels))
        for name, values in (("shift", SHIFT), ("scale", SCALE)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance [B] float32 of pictures x and y [B, 3, H, W] in 0..1, differentiable with respect to both.

        Raises RecipeError for pictures that are smaller than what the network reduces to one pixel.
        """
        smallest = SMALLEST_SIDE[self.backbone]
        if min(x.shape[-2:]) < smallest:
            raise RecipeError(
                f"LPIPS cannot compare pictures of {x.shape[-1]} x {x.shape[-2]} pixels.",
                where="data.crop", way_out=f"Take crops of at least {smallest} pixels, or leave the loss out.",
            )  # fmt: skip
        distance = torch.zeros(x.shape[0], device=x.device)
        for index, (of_x, of_y) in enumerate(zip(self._features(x), self._features(y), strict=True)):
            difference = (_unit(of_x) - _unit(of_y)) ** 2
            distance = distance + self.get_submodule(f"lin{index}")(difference).mean(dim=(1, 2, 3))
        return distance

    def _features(self, pictures: Tensor) -> list[Tensor]:
        """Activations [B, C, h, w] of every tap."""
        taps = TAPS[self.backbone]
        values = ((as_pixels(pictures) - self.shift) / self.scale).to(self.features.get_parameter("0.weight").dtype)
        found = []
        for index, layer in enumerate(self.features):
            values = layer(values)
            if index in taps:
                found.append(values)
        return found


class _Head(nn.Module):
    """Weights of a tap's channels [1, C, 1, 1], behind what was a dropout in their training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))

    def forward(self, difference: Tensor) -> Tensor:
        return F.conv2d(difference, self.model.get_parameter("1.weight").float())


def _unit(features: Tensor) -> Tensor:
    """Every pixel's vector of length 1, float32."""
    values = features.float()
    return values / (values.square().sum(dim=1, keepdim=True).sqrt() + SMALLEST_LENGTH)


def _alexnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


def _vgg16() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for block in VGG16:
        layers += [nn.MaxPool2d(2, 2)] if layers else []
        for width in block:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def read_lpips(where: Path | None) -> Lpips:
    """The distance whose weights lie in a safetensors file or in those of a folder; see the top of this file.

    On the meta device, where a dry run builds, nothing is read. Raises RecipeError where a recipe names no place, WeightsError for
    tensors that are missing, unknown or of another shape; the classifier that torchvision's files hold is left aside.
    """
    if torch.get_default_device().type == "meta":
        return Lpips()
    if where is None:
        raise RecipeError("the loss `lpips` has no weights.", where="settings.lpips", way_out=WAY_OUT)
    tensors = {name: tensor for name, tensor in _read(where).items() if not name.startswith("classifier.")}
    backbone: Backbone = "vgg16" if "features.28.weight" in tensors else "alexnet"
    for part in ("features.0.weight", "lin0.model.1.weight"):
        if part not in tensors:
            raise WeightsError(f"tensor {part} is missing.", where=str(where), way_out=WAY_OUT)
    return build_network(partial(Lpips, backbone), tensors, str(where)).requires_grad_(False)


def _read(where: Path) -> dict[str, Tensor]:
    paths = sorted(where.glob("*.safetensors")) if where.is_dir() else [where]
    tensors: dict[str, Tensor] = {}
    for path in paths:
        for name, tensor in read_weights(path)[0].items():
            if name in tensors:
                raise WeightsError(f"two files hold a tensor {name}.", where=str(where), way_out="Keep one backbone and its heads there.")
            tensors[name] = tensor
    return tensors
