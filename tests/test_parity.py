"""The parity harness: the golden folder holds, other numbers work unchanged, and faults are told honestly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import parity
import pytest
import torch
from golden_files import GOLDEN
from kintsugi.core.degradation import simulated_jpeg
from parity_cases.sidecar import Sidecar
from safetensors.torch import load_file, save_file
from scipy import fft, ndimage, special
from torch import Tensor

FOLDER = GOLDEN / "tsd-sr"


def test_every_golden_tensor_of_the_degradation_model_holds() -> None:
    checks = parity.run_parity("degradation", FOLDER)
    assert [check for check in checks if not check.passed] == []
    assert {"sinc_13_pad21", "usm", "jpeg_q71.5", "filter2d_sinc_21", "down_bicubic", "gauss_noise"} <= {check.tensor for check in checks}


def test_a_folder_with_other_numbers_made_by_other_code_holds(other_folder: Path) -> None:
    checks = parity.run_parity("degradation", other_folder)
    assert [parity.line(check) for check in checks if not check.passed] == []
    assert len(checks) == 12


def test_a_wrong_number_fails_with_status_1(other_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = other_folder / "g_ops.safetensors"
    tensors = load_file(path)
    tensors["usm"] += 0.001
    save_file(tensors, path)
    assert parity.main(["degradation", str(other_folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [check["tensor"] for check in report["checks"] if not check["passed"]] == ["usm"]


def test_a_tensor_that_no_check_knows_fails(other_folder: Path) -> None:
    path = other_folder / "g_ops.json"
    sidecar = json.loads(path.read_text())
    sidecar["tensors"]["mystery"] = {"shape": [1], "meaning": "something new"}
    path.write_text(json.dumps(sidecar))
    assert [check.tensor for check in parity.run_parity("degradation", other_folder) if not check.passed] == ["mystery"]


@pytest.mark.parametrize(
    "arguments", [["nothing", "."], ["degradation", "no/such/folder"], ["degradation", str(FOLDER), "--kind", "training"]], ids=" ".join
)
def test_a_request_that_cannot_be_run_ends_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert parity.main(arguments) == 2
    assert capsys.readouterr().err.startswith("parity: ")


def test_a_broken_sidecar_or_a_missing_tensors_file_ends_with_status_2(other_folder: Path) -> None:
    (other_folder / "g_ops.safetensors").unlink()
    assert parity.main(["degradation", str(other_folder)]) == 2
    (other_folder / "g_ops.json").write_text("{")
    assert parity.main(["degradation", str(other_folder)]) == 2


def test_a_jpeg_coefficient_at_a_tie_may_flip_and_is_counted(tmp_path: Path) -> None:
    tie = flip_coefficient(tmp_path, lambda distance: distance.argmin())
    check = next(check for check in parity.run_parity("degradation", tmp_path) if check.tensor == "jpeg_q32")
    assert tie < 1e-3 and check.passed and check.note.startswith("1 coefficient(s)")


def test_a_jpeg_coefficient_away_from_a_tie_may_not_flip(tmp_path: Path) -> None:
    distance = flip_coefficient(tmp_path, lambda distance: (distance - 0.2).abs().argmin())
    check = next(check for check in parity.run_parity("degradation", tmp_path) if check.tensor == "jpeg_q32")
    assert distance > 0.1 and not check.passed and "more than rounding ties" in check.note


def flip_coefficient(folder: Path, choose) -> float:  # type: ignore[no-untyped-def]
    """The golden folder with one luma coefficient of jpeg_q32 rounded the other way; its distance from the tie."""
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    path = folder / "f_degradation_ops.safetensors"
    tensors = load_file(path)
    exact = simulated_jpeg.encode(tensors["image"], torch.tensor([32.0]))
    # Only blocks inside the picture: the rest of the padded ones is cropped away.
    visible = exact.luma[:, :5, :7]
    fraction = (visible - visible.floor() - 0.5).abs()
    place = torch.unravel_index(choose(fraction), fraction.shape)
    rounded = exact.rounded(differentiable=False)
    rounded.luma[place] += 1 if rounded.luma[place] < exact.luma[place] else -1
    tensors["jpeg_q32"] = simulated_jpeg.decode(rounded)[..., :40, :56].contiguous()
    save_file(tensors, path)
    return float(fraction[place])


@pytest.mark.parametrize(
    ("changed", "by", "passes"), [(4, 2, True), (6, 1, False), (1, 3, False)], ids=["few by little", "too many", "one by too much"]
)
def test_8_bit_pictures_are_held_to_the_levels_and_the_share_of_their_rule(tmp_path: Path, changed: int, by: int, passes: bool) -> None:
    picture = torch.full((10, 100, 1), 7, dtype=torch.uint8)
    write(tmp_path, "picture", {"picture": picture}, {}, {}, 0.0)
    sidecar = Sidecar.read(tmp_path / "picture.json")
    assert sidecar is not None
    sidecar.content["tolerance"]["uint8_images"] = "differ by at most 2 grey levels, on at most 0.5% of the values"
    computed = picture.clone()
    computed[0, :changed] -= by
    assert sidecar.compare("any", "picture", computed).passed is passes


# --- a golden folder of the same form, other numbers, made with scipy


@pytest.fixture
def other_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "other"
    folder.mkdir()
    write_kernels(folder)
    write_operations(folder)
    return folder


def write(folder: Path, name: str, tensors: dict[str, Tensor], meanings: dict[str, str], config: dict, limit: float) -> None:
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors")
    entries = {key: {"shape": list(value.shape), "meaning": meanings.get(key, "")} for key, value in tensors.items()}
    sidecar = {"file": f"{name}.safetensors", "config": config, "tolerance": {"limit": limit}, "tensors": entries}
    (folder / f"{name}.json").write_text(json.dumps(sidecar))


def write_kernels(folder: Path) -> None:
    parameters = {
        "iso_9": {"function": "isotropic gaussian", "k": 9, "sigma": 0.8},
        "aniso_15": {"function": "anisotropic gaussian", "k": 15, "sigma_x": 3.5, "sigma_y": 0.9, "theta": 2.2},
        "generalized_iso_11": {"function": "generalized isotropic gaussian", "k": 11, "sigma": 2.0, "beta": 0.6},
        "plateau_aniso_17": {"function": "anisotropic plateau", "k": 17, "sigma_x": 2.5, "sigma_y": 1.1, "theta": -1.0, "beta": 1.9},
        "sinc_11_pad25": {"function": "sinc low-pass padded to 25", "k": 11, "cutoff": 1.3, "pad_to": 25},
    }
    write(
        folder,
        "g_kernels",
        {name: torch.from_numpy(reference_kernel(**p)) for name, p in parameters.items()},
        {},
        {"parameters": parameters},
        1e-9,
    )


def reference_kernel(function, k, sigma=None, sigma_x=None, sigma_y=None, theta=0.0, beta=None, cutoff=None, pad_to=None):  # type: ignore[no-untyped-def]
    axis = np.arange(k) - k // 2
    x, y = np.meshgrid(axis, axis)
    if cutoff:
        radius = np.hypot(x, y)
        with np.errstate(invalid="ignore"):
            kernel = np.where(radius > 0, cutoff * special.j1(cutoff * radius) / (2 * np.pi * radius), cutoff**2 / (4 * np.pi))
        margin = ((pad_to or k) - k) // 2
        return np.pad(kernel / kernel.sum(), margin)
    turn = np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])
    spread = turn @ np.diag([(sigma or sigma_x) ** 2, (sigma or sigma_y) ** 2]) @ turn.T
    offsets = np.stack([x, y], axis=-1)
    q = np.einsum("...i,ij,...j", offsets, np.linalg.inv(spread), offsets)
    kernel = 1 / (1 + q**beta) if "plateau" in function else np.exp(-0.5 * q ** (beta or 1))
    return kernel / kernel.sum()


def write_operations(folder: Path) -> None:
    random = np.random.default_rng(4)
    coarse = random.random((2, 3, 6, 5))
    image = np.clip(ndimage.zoom(coarse, (1, 1, 35 / 6, 50 / 5), order=3), 0, 1)
    assert image.shape == (2, 3, 35, 50)
    draw = random.standard_normal((2, 3, 35, 50))
    kernel = reference_kernel("anisotropic gaussian", 15, sigma_x=3.5, sigma_y=0.9, theta=2.2)
    small = torch.nn.functional.interpolate(torch.from_numpy(image), (13, 19), mode="bicubic")
    tensors = {
        "image": image,
        "filter2d_aniso_15": ndimage.correlate(image, kernel[None, None], mode="mirror"),
        "jpeg_q18": reference_jpeg(image, 18),
        "jpeg_q83.25": reference_jpeg(image, 83.25),
        "usm": reference_usm(image, 0.8, 4, 21),
        "down_bicubic": small.numpy(),
        "down_area": torch.nn.functional.interpolate(torch.from_numpy(image), (7, 10), mode="area").numpy(),
        "gauss_noise_draw": draw,
        "gauss_noise": draw * 5.25 / 255,
    }
    meanings = {
        "filter2d_aniso_15": "image filtered with g_kernels aniso_15 (reflect padding 7, correlation)",
        "usm": "USM sharpening: weight 0.8, threshold 4, radius 20(+1)",
        "down_bicubic": "plain tensor resize to 13x19, mode bicubic, no antialias",
        "down_area": "plain tensor resize to 7x10, mode area, no antialias",
        "gauss_noise": "gaussian noise for sigma 5.25 (8-bit scale): draw*sigma/255",
    }
    write(folder, "g_ops", {name: torch.from_numpy(value).float() for name, value in tensors.items()}, meanings, {}, 1e-4)


def reference_usm(image: np.ndarray, weight: float, threshold: float, size: int) -> np.ndarray:
    axis = np.arange(size) - size // 2
    profile = np.exp(-0.5 * (axis / (0.3 * ((size - 1) / 2 - 1) + 0.8)) ** 2)
    profile /= profile.sum()

    def blur(x: np.ndarray) -> np.ndarray:
        return ndimage.correlate1d(ndimage.correlate1d(x, profile, axis=2, mode="mirror"), profile, axis=3, mode="mirror")

    residual = image - blur(image)
    mask = blur((np.abs(residual) * 255 > threshold).astype(float))
    return mask * np.clip(image + weight * residual, 0, 1) + (1 - mask) * image


def reference_jpeg(image: np.ndarray, quality: float) -> np.ndarray:
    """The same rules once more, in float64 with scipy's DCT."""
    height, width = image.shape[-2:]
    rgb = np.pad(image, ((0, 0), (0, 0), (0, -height % 16), (0, -width % 16))) * 255
    y = 0.299 * rgb[:, 0] + 0.587 * rgb[:, 1] + 0.114 * rgb[:, 2]
    cb = (rgb[:, 2] - y) / 1.772
    cr = (rgb[:, 0] - y) / 1.402
    factor = 50 / quality if quality < 50 else 2 - quality / 50
    luma = code_plane(y - 128, np.array(simulated_jpeg.LUMA_TABLE).T * factor) + 128
    cb, cr = (code_plane(halved(plane), np.array(simulated_jpeg.CHROMA_TABLE) * factor).repeat(2, 1).repeat(2, 2) for plane in (cb, cr))
    red, blue = luma + 1.402 * cr, luma + 1.772 * cb
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    return np.clip(np.stack([red, green, blue], axis=1), 0, 255)[..., :height, :width] / 255


def halved(plane: np.ndarray) -> np.ndarray:
    return (plane[:, ::2, ::2] + plane[:, 1::2, ::2] + plane[:, ::2, 1::2] + plane[:, 1::2, 1::2]) / 4


def code_plane(plane: np.ndarray, table: np.ndarray) -> np.ndarray:
    result = np.empty_like(plane)
    for picture in range(plane.shape[0]):
        for top in range(0, plane.shape[1], 8):
            for left in range(0, plane.shape[2], 8):
                place = (picture, slice(top, top + 8), slice(left, left + 8))
                coefficients = np.round(fft.dctn(plane[place], norm="ortho") / table)
                result[place] = fft.idctn(coefficients * table, norm="ortho")
    return result
