"""LPIPS against its formula written out, with random weights in the published layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kintsugi.core.errors import RecipeError, WeightsError
from kintsugi.training.lpips import Lpips, read_lpips
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

# Output channels, kernel, stride, padding of AlexNet's convolutions by torchvision's index; whether pooled before.
ALEXNET = {0: (64, 11, 4, 2, False), 3: (192, 5, 1, 2, True), 6: (384, 3, 1, 1, True), 8: (256, 3, 1, 1, False), 10: (256, 3, 1, 1, False)}


def published_tensors() -> dict[str, Tensor]:
    """Names and shapes as torchvision's AlexNet and the heads of the package lpips have them; values random."""
    random = torch.Generator().manual_seed(0)
    tensors, inputs = {}, 3
    for layer, (index, (outputs, kernel, *_)) in enumerate(ALEXNET.items()):
        scale = (inputs * kernel**2) ** -0.5
        tensors[f"features.{index}.weight"] = torch.randn(outputs, inputs, kernel, kernel, generator=random) * scale
        tensors[f"features.{index}.bias"] = torch.randn(outputs, generator=random) * 0.1
        tensors[f"lin{layer}.model.1.weight"] = torch.rand(1, outputs, 1, 1, generator=random)
        inputs = outputs
    tensors["classifier.1.weight"] = torch.zeros(2, 2)
    return tensors


def by_hand(tensors: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """sum over layers of the mean over pixels of w . (x_l / |x_l| - y_l / |y_l|)^2, picture by picture, in double precision."""
    shift = torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float64).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450], dtype=torch.float64).view(1, 3, 1, 1)
    planes = [((2 * picture.double() - 1) - shift) / scale for picture in (x, y)]
    total = torch.zeros(len(x), dtype=torch.float64)
    for layer, (index, (_, _, stride, padding, pooled)) in enumerate(ALEXNET.items()):
        weight, bias = tensors[f"features.{index}.weight"].double(), tensors[f"features.{index}.bias"].double()
        planes = [F.max_pool2d(plane, 3, 2) if pooled else plane for plane in planes]
        planes = [F.conv2d(plane, weight, bias, stride, padding).clamp(min=0) for plane in planes]
        one, other = (plane / (plane.norm(dim=1, keepdim=True) + 1e-10) for plane in planes)
        total += ((one - other) ** 2 * tensors[f"lin{layer}.model.1.weight"].double()).sum(dim=1).mean(dim=(1, 2))
    return total


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Backbone and heads in two files, as `kintsugi convert` leaves them."""
    place = tmp_path_factory.mktemp("lpips")
    tensors = published_tensors()
    save_file({name: tensor for name, tensor in tensors.items() if name.startswith("lin")}, place / "heads.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if not name.startswith("lin")}, place / "backbone.safetensors")
    return place


def test_the_distance_is_the_formula_and_its_gradient_that_of_the_formula(folder: Path) -> None:
    lpips, tensors = read_lpips(folder), published_tensors()
    x, y = torch.rand(2, 3, 64, 80), torch.rand(2, 3, 64, 80)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = lpips(ours, y), by_hand(tensors, theirs, y)
    assert found.shape == (2,) and (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    found.sum().backward()
    expected.sum().backward()
    assert ours.grad is not None and theirs.grad is not None
    assert (ours.grad - theirs.grad).abs().max() <= 1e-4 * theirs.grad.abs().max()


def test_equal_pictures_are_at_distance_zero_and_nothing_of_the_network_is_trained(folder: Path) -> None:
    lpips, x = read_lpips(folder), torch.rand(1, 3, 40, 40)
    assert lpips(x, x).item() == 0
    assert not lpips.training and not any(parameter.requires_grad for parameter in lpips.parameters())


def test_one_file_of_both_serves_too_and_half_precision_stays_near(folder: Path, tmp_path: Path) -> None:
    save_file(published_tensors(), tmp_path / "both.safetensors")
    x, y = torch.rand(2, 1, 3, 48, 48)
    whole = read_lpips(folder)(x, y)
    assert torch.equal(read_lpips(tmp_path / "both.safetensors")(x, y), whole)
    assert (read_lpips(folder).bfloat16()(x, y) - whole).abs().max() <= 0.05 * whole.abs().max()


def test_vgg16_has_torchvisions_names_and_takes_features_after_each_block() -> None:
    lpips = Lpips("vgg16")
    names = {name for name in lpips.state_dict() if name.startswith("features") and name.endswith("weight")}
    assert names == {f"features.{index}.weight" for index in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}
    shapes = [tuple(feature.shape) for feature in lpips._features(torch.rand(1, 3, 32, 32))]
    assert shapes == [(1, 64, 32, 32), (1, 128, 16, 16), (1, 256, 8, 8), (1, 512, 4, 4), (1, 512, 2, 2)]


def test_a_dry_run_builds_it_without_a_file() -> None:
    with torch.device("meta"):
        lpips = read_lpips(None)
    assert sum(parameter.numel() for parameter in lpips.parameters()) == 2_470_848


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda tensors: tensors.pop("lin0.model.1.weight"), "lin0.model.1.weight is missing"),
        (lambda tensors: tensors.pop("lin3.model.1.weight"), "lin3.model.1.weight is missing"),
        (lambda tensors: tensors.update({"features.3.weight": torch.zeros(192, 64, 3, 3)}), r"3, 3\], expected \[192, 64, 5, 5\]"),
        (lambda tensors: tensors.update({"lin5.model.1.weight": torch.zeros(1)}), "lin5.model.1.weight is unknown"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_whole_is_refused_by_name(fault: object, words: str, tmp_path: Path) -> None:
    tensors = published_tensors()
    fault(tensors)  # type: ignore[operator]
    save_file(tensors, tmp_path / "lpips.safetensors")
    with pytest.raises(WeightsError, match=words):
        read_lpips(tmp_path)


def test_no_file_two_of_a_kind_and_small_crops_are_explained(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"settings\.lpips"):
        read_lpips(None)
    for name in ("one", "other"):
        save_file({"lin0.model.1.weight": torch.zeros(1, 64, 1, 1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(WeightsError, match="two files"):
        read_lpips(tmp_path)
    with pytest.raises(RecipeError, match="at least 31 pixels"):
        read_lpips(folder)(torch.rand(1, 3, 30, 64), torch.rand(1, 3, 30, 64))
