"""How good a picture is: full-reference and no-reference measures without weights, and pyiqa's where that is installed.

Every measure takes one picture [1, 3, H, W] in 0..1 (and a reference of the same shape) and gives one number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from math import inf, log10, pi, sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import BadValueError, MissingPackageError

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
PYIQA_PREFIX = "pyiqa:"
# Digital YCbCr of BT.601: Y goes from 16 for black to 235 for white.
DIGITAL_LUMA, DIGITAL_BLACK = (65.481, 128.553, 24.966), 16.0
# pyiqa adds this to the mean squared error, so that equal pictures have 80 dB.
PYIQA_SMALLEST_ERROR = 1e-8


@dataclass(frozen=True)
class Metric:
    """One measure. function(picture) or function(picture, reference), as needs_reference says. unit: for people."""

    function: Callable[..., float]
    needs_reference: bool
    higher_is_better: bool | None
    unit: str = ""


def psnr(picture: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio over all channels in dB; infinite for equal pictures."""
    error = float(F.mse_loss(picture.double(), reference.double()))
    return inf if error == 0 else -10 * log10(error)


def psnr_y(picture: Tensor, reference: Tensor) -> float:
    """PSNR of the luma, full range."""
    return psnr(luma(picture), luma(reference))


def psnr_y601(picture: Tensor, reference: Tensor) -> float:
    """PSNR of the Y of digital YCbCr, as papers report it: pyiqa's psnr with test_y_channel and color_space ycbcr."""
    error = float(F.mse_loss(digital_luma(picture.double()), digital_luma(reference.double())))
    return -10 * log10(error + PYIQA_SMALLEST_ERROR)


def luma(picture: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, 1, H, W], BT.601 weights, same range."""
    return weighted(picture, LUMA)


def digital_luma(picture: Tensor) -> Tensor:
    """[B, 3, H, W] in 0..1 -> Y of BT.601's digital YCbCr [B, 1, H, W], in 16/255..235/255."""
    return (weighted(picture, DIGITAL_LUMA) + DIGITAL_BLACK) / 255


def weighted(picture: Tensor, channel_weights: tuple[float, float, float]) -> Tensor:
    """Weighted sum of the channels: [B, 3, H, W] -> [B, 1, H, W]."""
    weights = torch.tensor(channel_weights, dtype=picture.dtype, device=picture.device)
    return (picture * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)


def gaussian_kernel(sigma: float, radius: int) -> Tensor:
    """Sampled Gaussian [2 radius + 1] that sums to 1."""
    positions = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-(positions**2) / (2 * sigma**2))
    return kernel / kernel.sum()


def gaussian_filter(pictures: Tensor, sigma: float, radius: int) -> Tensor:
    """Separable Gaussian of [B, C, H, W] where the window fits: [B, C, H - 2 radius, W - 2 radius]."""
    channels = pictures.shape[1]
    kernel = gaussian_kernel(sigma, radius).to(pictures).expand(channels, 1, 1, -1)
    rows = F.conv2d(pictures, kernel, groups=channels)
    return F.conv2d(rows, kernel.transpose(2, 3), groups=channels)


SSIM_RADIUS, SSIM_SIGMA = 5, 1.5


def ssim(picture: Tensor, reference: Tensor) -> float:
    """Structural similarity of the luma (Wang et al. 2004): Gaussian window 11, sigma 1.5, K = 0.01 and 0.03."""
    require_side("ssim", picture, 2 * SSIM_RADIUS + 1)
    luminance, contrast = ssim_maps(luma(picture), luma(reference))
    return float((luminance * contrast).mean())


def ssim_y601(picture: Tensor, reference: Tensor) -> float:
    """SSIM of the Y of digital YCbCr, as papers report it: pyiqa's ssim with color_space ycbcr.

    Unlike ssim(): Y has the limited range and is rounded to whole levels, and negative contrast-structure terms count as 0.
    """
    require_side("ssim_y601", picture, 2 * SSIM_RADIUS + 1)
    x, y = ((255 * digital_luma(side.double())).round() / 255 for side in (picture, reference))
    luminance, contrast = ssim_maps(x, y)
    return float((luminance * contrast.clamp(min=0)).mean())


def ssim_maps(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure terms of two planes [1, 1, H, W] in 0..1, in double precision."""
    x, y = x.double(), y.double()
    c1, c2 = 0.01**2, 0.03**2
    moments = torch.cat([x, y, x * x, y * y, x * y], dim=1)
    mean_x, mean_y, xx, yy, xy = gaussian_filter(moments, SSIM_SIGMA, SSIM_RADIUS).split(1, dim=1)
    covariance, variances = xy - mean_x * mean_y, xx - mean_x**2 + yy - mean_y**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance, (2 * covariance + c2) / (variances + c2)


MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim(picture: Tensor, reference: Tensor) -> float:
    """Multi-scale SSIM of the luma (Wang et al. 2003): five scales, halved by averaging 2 x 2; negative terms count as 0."""
    require_side("ms_ssim", picture, (2 * SSIM_RADIUS + 1) * 2 ** (len(MS_SSIM_WEIGHTS) - 1))
    x, y = luma(picture), luma(reference)
    result = 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        luminance, contrast = ssim_maps(x, y)
        last = scale == len(MS_SSIM_WEIGHTS) - 1
        term = float((luminance * contrast).mean()) if last else float(contrast.mean())
        result *= max(term, 0.0) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return result


SWD_PATCH, SWD_PATCHES, SWD_PROJECTIONS, SWD_SIGMA = 7, 1500, 128, 1.5


def patch_swd(picture: Tensor, reference: Tensor) -> float:
    """Sliced-Wasserstein distance between the patches of two pictures, x 1000: does the fine texture look alike?

    Both lose their Gaussian of sigma 1.5; 1,500 patches 7 x 7 x 3 at the same random positions, at full and half size, are
    projected on 128 fixed unit vectors; mean absolute difference of the sorted projections, averaged over the sizes.
    """
    require_side("swd", picture, 2 * SWD_PATCH)
    random = torch.Generator().manual_seed(0)
    projections = torch.randn(3 * SWD_PATCH**2, SWD_PROJECTIONS, generator=random)
    projections = projections / projections.norm(dim=0)
    distances = []
    for x, y in ((picture, reference), (F.avg_pool2d(picture, 2), F.avg_pool2d(reference, 2))):
        rows = torch.randint(x.shape[2] - SWD_PATCH + 1, (SWD_PATCHES,), generator=random)
        columns = torch.randint(x.shape[3] - SWD_PATCH + 1, (SWD_PATCHES,), generator=random)
        a, b = (patches(detail(side), rows, columns) @ projections for side in (x, y))
        distances.append(float((a.sort(dim=0).values - b.sort(dim=0).values).abs().mean()))
    return 1000 * sum(distances) / len(distances)


def detail(picture: Tensor) -> Tensor:
    """The picture less its Gaussian of sigma 1.5, on the CPU in float32."""
    picture = picture.detach().to("cpu", torch.float32)
    radius = 6
    return picture - gaussian_filter(F.pad(picture, (radius,) * 4, mode="replicate"), SWD_SIGMA, radius)


def patches(picture: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[N, 3 * 7 * 7] of a picture [1, 3, H, W] with the given top left corners."""
    offsets = torch.arange(SWD_PATCH)
    y = (rows[:, None] + offsets)[:, :, None].expand(-1, -1, SWD_PATCH)
    x = (columns[:, None] + offsets)[:, None, :].expand(-1, SWD_PATCH, -1)
    return picture[0][:, y, x].permute(1, 0, 2, 3).flatten(1)


GRID_PERIOD = 16
GRID_NEIGHBOURS = 3


def grid_peak(picture: Tensor, reference: Tensor) -> float:
    """How far periodic artefacts stand out of the error: the largest ratio over rows and columns; about 1 without, gate 2.

    Power spectrum of the luma error under a Hann window; energy at exactly k/4, k/8 and k/16 cycles per pixel divided by
    the median energy within 3 bins around it.
    """
    require_side("grid", picture, 4 * GRID_PERIOD)
    error = (luma(picture) - luma(reference))[0, 0].double()
    ratios = []
    for plane in (error, error.T):
        plane = plane[:, : plane.shape[1] // GRID_PERIOD * GRID_PERIOD]
        length = plane.shape[1]
        window = torch.hann_window(length, periodic=True, dtype=plane.dtype, device=plane.device)
        power = torch.fft.fft(plane * window).abs().square().mean(0)
        for k in range(1, GRID_PERIOD // 2 + 1):
            peak = k * length // GRID_PERIOD
            around = [(peak + step) % length for step in range(-GRID_NEIGHBOURS, GRID_NEIGHBOURS + 1)]
            floor = float(power[around].median())
            ratios.append(float(power[peak]) / floor if floor > 0 else 1.0)
    return max(ratios)


def sharpness(picture: Tensor) -> float:
    """Variance of the Laplacian of the luma in grey levels of 255; noise raises it too."""
    require_side("sharpness", picture, 3)
    return float(F.conv2d(grey_levels(picture), kernel_3x3(picture, [[0, 1, 0], [1, -4, 1], [0, 1, 0]])).var(correction=0))


def noise_level(picture: Tensor) -> float:
    """Standard deviation of the noise in grey levels of 255, estimated as Immerkaer 1996 does; fine texture raises it."""
    require_side("noise", picture, 3)
    response = F.conv2d(grey_levels(picture), kernel_3x3(picture, [[1, -2, 1], [-2, 4, -2], [1, -2, 1]]))
    return sqrt(pi / 2) / 6 * float(response.abs().mean())


def blockiness(picture: Tensor) -> float:
    """Mean step across 8-pixel block borders over the mean step elsewhere; 1 without JPEG blocks."""
    require_side("blockiness", picture, 17)
    grey = grey_levels(picture)[0, 0]
    border, elsewhere = 0.0, 0.0
    for steps in (grey.diff(dim=1).abs().mean(0), grey.diff(dim=0).abs().mean(1)):
        at_border = torch.arange(1, len(steps) + 1, device=steps.device) % 8 == 0
        border += float(steps[at_border].mean())
        elsewhere += float(steps[~at_border].mean())
    return border / elsewhere if elsewhere > 0 else 1.0


def colorfulness(picture: Tensor) -> float:
    """Hasler and Suesstrunk 2003, in grey levels of 255: 0 grey, 33 moderate, above 80 very colourful."""
    red, green, blue = (picture[0].double() * 255).unbind(0)
    opponents = torch.stack([red - green, (red + green) / 2 - blue]).flatten(1)
    spread, offset = opponents.var(1, correction=0).sum().sqrt(), opponents.mean(1).square().sum().sqrt()
    return float(spread + 0.3 * offset)


def grey_levels(picture: Tensor) -> Tensor:
    """Luma [B, 1, H, W] float64 in 0..255 of pictures in 0..1."""
    return luma(picture.double()) * 255


def kernel_3x3(like: Tensor, rows: list[list[int]]) -> Tensor:
    """A kernel [1, 1, 3, 3] float64 on that tensor's device."""
    return torch.tensor(rows, dtype=torch.float64, device=like.device)[None, None]


METRICS: dict[str, Metric] = {
    "psnr": Metric(psnr, True, True, "dB"),
    "psnr_y": Metric(psnr_y, True, True, "dB"),
    "psnr_y601": Metric(psnr_y601, True, True, "dB"),
    "ssim": Metric(ssim, True, True),
    "ssim_y601": Metric(ssim_y601, True, True),
    "ms_ssim": Metric(ms_ssim, True, True),
    "swd": Metric(patch_swd, True, False),
    "grid": Metric(grid_peak, True, False),
    "sharpness": Metric(sharpness, False, None),
    "noise": Metric(noise_level, False, False, "levels"),
    "blockiness": Metric(blockiness, False, False),
    "colorfulness": Metric(colorfulness, False, None),
}
DEFAULT_WITH_REFERENCE = ("psnr", "ssim")
DEFAULT_WITHOUT_REFERENCE = ("sharpness", "noise", "blockiness")


def find_metric(name: str) -> Metric:
    """The measure of that name; `pyiqa:NAME` is pyiqa's. BadValueError for an unknown one, MissingPackageError without pyiqa."""
    if name in METRICS:
        return METRICS[name]
    if name.startswith(PYIQA_PREFIX):
        return pyiqa_metric(name.removeprefix(PYIQA_PREFIX))
    raise BadValueError(
        f"{name!r} is no measure.", way_out=f"Use some of {', '.join(METRICS)}, or {PYIQA_PREFIX}NAME with the extra `iqa` installed."
    )


def parse_metrics(text: str, has_reference: bool) -> list[str]:
    """Names from `a, b`; empty text gives the default set. BadValueError when one is unknown or misses its reference."""
    names = [name.strip() for name in text.replace("\n", ",").split(",") if name.strip()]
    if not names:
        return list(DEFAULT_WITH_REFERENCE if has_reference else DEFAULT_WITHOUT_REFERENCE)
    lacking = [name for name in names if find_metric(name).needs_reference] if not has_reference else []
    if lacking:
        raise BadValueError(
            f"{', '.join(lacking)} compare with a reference and none is given.", way_out="Give a reference, or other metrics."
        )
    return names


def measure(picture: Tensor, reference: Tensor | None, names: Sequence[str]) -> dict[str, float]:
    """Name -> value of one picture [1, 3, H, W] in 0..1 against a reference of the same shape. Raises BadValueError."""
    if reference is not None:
        require_same_size(picture, reference)
    values = {}
    for name in names:
        metric = find_metric(name)
        if metric.needs_reference and reference is None:
            raise BadValueError(f"{name} compares with a reference and none is given.", way_out="Give a reference, or other metrics.")
        values[name] = metric.function(picture, reference) if metric.needs_reference else metric.function(picture)
    return values


def size_of(picture: Tensor) -> str:
    """`640 x 480` of [1, 3, 480, 640]."""
    return f"{picture.shape[-1]} x {picture.shape[-2]}"


def require_same_size(picture: Tensor, reference: Tensor) -> None:
    """Raise BadValueError for pictures [1, 3, H, W] of two sizes."""
    if picture.shape != reference.shape:
        raise BadValueError(
            f"the picture is {size_of(picture)} pixels, its reference {size_of(reference)}.", way_out="Compare pictures of one size."
        )


def require_side(name: str, picture: Tensor, smallest: int) -> None:
    """Raise BadValueError for a picture [1, 3, H, W] with a side below the smallest."""
    height, width = picture.shape[2:]
    if min(height, width) < smallest:
        raise BadValueError(f"{name} needs pictures of at least {smallest} x {smallest} pixels, this one is {width} x {height}.")


@lru_cache(maxsize=8)
def pyiqa_model(name: str) -> Any:
    """A measure of the optional package pyiqa (non-commercial licence), as its create_metric() gives it."""
    if find_spec("pyiqa") is None:
        raise MissingPackageError("the package pyiqa is not installed.", way_out="Install kintsugi-restoration[iqa].")
    try:
        import pyiqa

        return pyiqa.create_metric(name)
    except (ImportError, RuntimeError, KeyError, OSError) as error:
        raise MissingPackageError(
            f"pyiqa's measure {name!r} is not available ({type(error).__name__}: {error}).",
            way_out="Install kintsugi-restoration[iqa] with a working torchvision; weights it needs must be on this machine.",
        ) from error


def pyiqa_metric(name: str) -> Metric:
    """One of pyiqa's measures of single pictures."""
    model = pyiqa_model(name)

    def function(*pictures: Tensor) -> float:
        with torch.inference_mode():
            return float(model(*pictures))

    return Metric(function, model.metric_mode == "FR", not model.lower_better)


def measure_folders(name: str, pictures: Path, references: Path) -> float:
    """A distance between two whole folders, as pyiqa's `fid`. Raises MissingPackageError without pyiqa."""
    return float(pyiqa_model(name)(str(pictures), str(references)))
