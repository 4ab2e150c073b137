"""Degradation: blur kernels, filtering, simulated JPEG, unsharp mask, plain resizes, Gaussian noise."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain, combinations
from typing import Any

import torch
from kintsugi.core.degradation import filters, kernels, noise, resampling, simulated_jpeg
from kintsugi.core.degradation.simulated_jpeg import JpegCoefficients
from parity_cases.sidecar import BadRequestError, Case, Check, Sidecar, load_tensors
from torch import Tensor

# How near to k + 1/2, in quantisation steps, a coefficient may come out on the other side in another float32 program.
TIE_WIDTH = 1e-3
MOST_TIES = 12
NUMBER = r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)"


def number_after(word: str, sidecar: Sidecar, name: str) -> float:
    """The number behind a word of the tensor's meaning."""
    found = re.search(rf"\b{word}\s+{NUMBER}", sidecar.meaning(name))
    if found is None:
        raise BadRequestError(f"{sidecar.path}: the meaning of {name!r} names no {word}")
    return float(found[1])


# --- blur kernels


def is_kernels(sidecar: Sidecar) -> bool:
    parameters = sidecar.config.get("parameters")
    return isinstance(parameters, dict) and bool(parameters) and all("function" in entry for entry in parameters.values())


def build_kernel(entry: dict[str, Any]) -> Tensor:
    function, size = entry["function"], entry["k"]
    if function.startswith("sinc"):
        return kernels.sinc_kernel(size, entry["cutoff"], entry.get("pad_to"))
    spread = (entry["sigma"],) if "sigma" in entry else (entry["sigma_x"], entry["sigma_y"], entry["theta"])
    if "generalized" in function:
        return kernels.generalised_kernel(size, entry["beta"], *spread)
    if "plateau" in function:
        return kernels.plateau_kernel(size, entry["beta"], *spread)
    if "gaussian" in function:
        return kernels.gaussian_kernel(size, *spread)
    raise BadRequestError(f"no kernel is known as {function!r}")


def check_kernels(sidecar: Sidecar) -> Iterator[Check]:
    for name in sidecar.names:
        entry = sidecar.config["parameters"].get(name)
        if entry is None:
            yield sidecar.failed("kernels", name, "config.parameters has no entry of this name")
            continue
        try:
            computed = build_kernel(entry)
        except KeyError as missing:
            raise BadRequestError(f"{sidecar.path}: the parameters of {name!r} lack {missing}") from None
        yield sidecar.compare("kernels", name, computed)


# --- operations on pictures


def filtered(sidecar: Sidecar, name: str) -> Tensor:
    found = re.search(r"filtered with (\S+)\s+(\S+)", sidecar.meaning(name))
    file, kernel = (found[1], found[2]) if found else ("f_kernels", name.removeprefix("filter2d_"))
    stored = load_tensors(sidecar.path.with_name(f"{file}.safetensors"))
    if kernel not in stored:
        raise BadRequestError(f"{sidecar.path}: {name!r} needs kernel {kernel!r}, which {file}.safetensors lacks")
    pictures = sidecar.tensor("image")
    return filters.filter_pictures(pictures, stored[kernel].expand(pictures.shape[0], -1, -1))


def unsharp_masked(sidecar: Sidecar, name: str) -> Tensor:
    weight, threshold, radius = (number_after(word, sidecar, name) for word in ("weight", "threshold", "radius"))
    return filters.sharpen(sidecar.tensor("image"), weight, int(radius), threshold)


def resized(sidecar: Sidecar, name: str) -> Tensor:
    meaning = sidecar.meaning(name)
    size, mode = re.search(r"\bto (\d+)x(\d+)", meaning), re.search(r"\bmode (\w+)", meaning)
    if size is None or mode is None:
        raise BadRequestError(f"{sidecar.path}: the meaning of {name!r} names no size and mode")
    antialiased = "antialias" in meaning and "no antialias" not in meaning
    kind = f"{mode[1]}-antialiased" if antialiased else mode[1]
    if kind not in resampling.RESIZE_MODES:
        raise BadRequestError(f"{sidecar.path}: {name!r} asks for the unknown resize mode {kind!r}")
    return resampling.resize_pictures(sidecar.tensor("image"), int(size[1]), int(size[2]), kind)


def gaussian_noise(sidecar: Sidecar, name: str) -> Tensor:
    draw = sidecar.tensor(f"{name}_draw" if f"{name}_draw" in sidecar.names else "gauss_noise_draw")
    return noise.gaussian_noise(draw, torch.full((draw.shape[0],), number_after("sigma", sidecar, name), dtype=draw.dtype))


OPERATIONS: dict[str, Callable[[Sidecar, str], Tensor]] = {
    r"filter2d_.+": filtered,
    r"usm.*": unsharp_masked,
    r"down_.+|up_.+|resize_.+": resized,
    r"gauss_noise(?!.*_draw$).*": gaussian_noise,
}
JPEG_NAME = rf"jpeg_q{NUMBER}.*"
INPUT_NAME = r"image|.+_draw"


def operation_of(name: str) -> Callable[[Sidecar, str], Tensor] | None:
    return next((operation for pattern, operation in OPERATIONS.items() if re.fullmatch(pattern, name)), None)


def is_operations(sidecar: Sidecar) -> bool:
    return "image" in sidecar.names and any(operation_of(name) or re.fullmatch(JPEG_NAME, name) for name in sidecar.names)


def check_operations(sidecar: Sidecar) -> Iterator[Check]:
    for name in sidecar.names:
        operation, jpeg = operation_of(name), re.fullmatch(JPEG_NAME, name)
        if jpeg:
            yield check_jpeg(sidecar, name, float(jpeg[1]))
        elif operation:
            yield sidecar.compare("operations", name, operation(sidecar, name))
        elif not re.fullmatch(INPUT_NAME, name):
            yield sidecar.failed("operations", name, "no check knows this tensor")


# --- simulated JPEG, with the flips that its rule allows


def check_jpeg(sidecar: Sidecar, name: str, quality: float) -> Check:
    """As any tensor, but where the sidecar has the `jpeg` rule, blocks may differ by coefficients rounded the other way at a tie.

    A differing 16x16 block passes only if flipping some of its coefficients that lie at a tie, each by one step,
    brings every pixel of the block within the limit. The error printed is the one that remains after that.
    """
    pictures, reference = sidecar.tensor("image"), sidecar.tensor(name)
    coefficients = simulated_jpeg.encode(pictures, torch.full((pictures.shape[0],), quality))
    height, width = pictures.shape[-2:]
    computed = simulated_jpeg.decode(coefficients.rounded(differentiable=False))[..., :height, :width].clone()
    plain = sidecar.compare("operations", name, computed)
    if plain.passed or computed.shape != reference.shape or "jpeg" not in sidecar.content["tolerance"]:
        return plain
    allowed = sidecar.limit * float(reference.abs().max())
    flips = 0
    for batch, row, column in differing_blocks(computed, reference, allowed):
        window = (batch, slice(None), slice(16 * row, 16 * row + 16), slice(16 * column, 16 * column + 16))
        explained = block_with_flips(coefficients, (batch, row, column), reference[window], allowed)
        if explained is None:
            return sidecar.compare("operations", name, computed, f"block {batch}, {row}, {column} differs by more than rounding ties")
        computed[window], count = explained
        flips += count
    return sidecar.compare("operations", name, computed, f"{flips} coefficient(s) rounded the other way at a tie")


def differing_blocks(computed: Tensor, reference: Tensor, allowed: float) -> list[tuple[int, int, int]]:
    """(picture, row, column) of every 16x16 block with a pixel beyond the limit."""
    far = ((computed - reference).abs() > allowed).any(dim=1).nonzero()
    return sorted({(int(batch), int(y) // 16, int(x) // 16) for batch, y, x in far})


def block_with_flips(
    coefficients: JpegCoefficients, place: tuple[int, int, int], reference: Tensor, allowed: float
) -> tuple[Tensor, int] | None:
    """The block decoded with the fewest flips at ties that agree with the reference [3, h, w], and their number."""
    batch, row, column = place
    luma = coefficients.luma[batch : batch + 1, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].contiguous()
    chroma = coefficients.chroma[batch : batch + 1, :, row : row + 1, column : column + 1].contiguous()
    flat = torch.cat([luma.flatten(), chroma.flatten()])
    ties = ((flat - flat.floor() - 0.5).abs() <= TIE_WIDTH).nonzero().flatten().tolist()
    if len(ties) > MOST_TIES:
        return None
    for chosen in chain.from_iterable(combinations(ties, count) for count in range(1, len(ties) + 1)):
        rounded = flat.round()
        for index in chosen:
            rounded[index] = flat[index].floor() + flat[index].ceil() - rounded[index]
        parts = JpegCoefficients(
            rounded[: luma.numel()].view_as(luma), rounded[luma.numel() :].view_as(chroma), coefficients.factors[batch : batch + 1]
        )
        block = simulated_jpeg.decode(parts)[0, :, : reference.shape[1], : reference.shape[2]]
        if float((block - reference).abs().max()) <= allowed:
            return block, len(chosen)
    return None


CASES = (
    Case("kernels", "inference", is_kernels, check_kernels),
    Case("operations", "inference", is_operations, check_operations),
)
