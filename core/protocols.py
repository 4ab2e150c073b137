"""How each paper scores restored pictures: sizes, colour space, measures and the numbers it reports, as data.

All of them read files as 8-bit RGB in 0..1, compare without cutting a border, and average over the pictures of a set; a
distance between folders (FID) is one number for the set. Where a paper leaves something open, `notes` says how it is read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .errors import BadValueError
from .imaging.resize import resize
from .quality import require_same_size, size_of

PSNR, SSIM = "psnr_y601", "ssim_y601"


@dataclass(frozen=True)
class Column:
    """A measure as the paper's tables name it.

    metric: its name in core.quality, empty where nothing can compute it. of_folders: one number for two whole folders.
    needs_reference: it compares with the originals. reason: why nothing can compute it.
    """

    label: str
    metric: str = ""
    needs_reference: bool = False
    of_folders: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Published:
    """What the paper reports for its own method on one data set: label of a column -> value."""

    data_set: str
    table: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Sides:
    """Square pictures that a table compares, by their sides in pixels.

    how: `whole`, or the centre of both is cut to `compared`, or the result is shrunk to it (bicubic) as its reference is.
    """

    picture: int
    reference: int
    compared: int
    how: Literal["whole", "centre", "shrunk"] = "whole"

    def __str__(self) -> str:
        against = "" if self.picture == self.reference else f" against {self.reference} x {self.reference}"
        return f"{self.picture} x {self.picture}{against}"


@dataclass(frozen=True)
class Protocol:
    """sides: what may be compared, first fitting first; empty allows any size. source: where the paper says so."""

    name: str
    source: str
    columns: tuple[Column, ...]
    published: tuple[Published, ...]
    sides: tuple[Sides, ...] = ()
    notes: tuple[str, ...] = ()

    def prepare(self, picture: Tensor, reference: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What is compared, in whole grey levels of 8 bits, of a picture [1, 3, H, W] in 0..1 and its reference.

        Raises BadValueError with the expected and the found size.
        """
        if self.sides:
            sides = self._fitting(picture, reference)
            if sides.how == "shrunk":
                picture = resize(picture, sides.compared, sides.compared, "bicubic").clamp(0, 1)
            picture = centre(picture, sides.compared)
            reference = None if reference is None else centre(reference, sides.compared)
        elif reference is not None:
            require_same_size(picture, reference)
        return eight_bit(picture), None if reference is None else eight_bit(reference)

    def _fitting(self, picture: Tensor, reference: Tensor | None) -> Sides:
        for sides in self.sides:
            fits = picture.shape[-2:] == (sides.picture, sides.picture)
            if fits and (reference is None or reference.shape[-2:] == (sides.reference, sides.reference)):
                return sides
        found = size_of(picture) if reference is None else f"{size_of(picture)} against {size_of(reference)}"
        raise BadValueError(
            f"protocol {self.name} compares pictures of {' or '.join(map(str, self.sides))} pixels, this one is {found}.",
            way_out="Cut the test set as the paper does, or choose another protocol.",
        )


def centre(picture: Tensor, side: int) -> Tensor:
    """The middle square of [B, C, H, W]; all of it where it is that large."""
    top, left = (picture.shape[-2] - side) // 2, (picture.shape[-1] - side) // 2
    return picture[..., top : top + side, left : left + side]


def eight_bit(picture: Tensor) -> Tensor:
    """Rounded to the levels that an 8-bit file has; its own files are unchanged."""
    return (picture * 255).round() / 255


def find_protocol(name: str) -> Protocol:
    """The protocol of that name; raises BadValueError listing the known ones."""
    if name not in PROTOCOLS:
        raise BadValueError(f"there is no protocol {name!r}.", way_out=f"Known: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def _compared(label: str, metric: str) -> Column:
    return Column(label, metric, needs_reference=True)


FID = Column("FID", "fid", needs_reference=True, of_folders=True)
PAIRS = (_compared("PSNR", PSNR), _compared("SSIM", SSIM), _compared("LPIPS", "pyiqa:lpips"))
NIQE, MUSIQ, CLIPIQA, MANIQA = (Column(name.upper(), f"pyiqa:{name}") for name in ("niqe", "musiq", "clipiqa", "maniqa"))
MANIQA_PIPAL = Column("MANIQA", "pyiqa:maniqa-pipal")

OPEN_COLOUR = "The paper does not name the colour space of PSNR and SSIM; read as Y of YCbCr, as in TSD-SR and InstaRevive."
OPEN_SIZES = "The paper gives no sizes: any are taken, result and reference of one size."


def _published(data_set: str, table: str, labels: str, *values: float) -> Published:
    """labels: those of the table's columns, separated by spaces."""
    return Published(data_set, table, dict(zip(labels.split(), values, strict=True)))


TSD_SR_COLUMNS = "PSNR SSIM LPIPS DISTS FID NIQE MUSIQ MANIQA CLIPIQA"
TSD_SR = Protocol(
    "tsd-sr",
    "TSD-SR (CVPR 2025), Table 1; PSNR and SSIM on Y of YCbCr, pyiqa 0.1.13",
    (*PAIRS, _compared("DISTS", "pyiqa:dists"), FID, NIQE, MUSIQ, MANIQA_PIPAL, CLIPIQA),
    (
        _published("DRealSR", "Table 1", TSD_SR_COLUMNS, 27.77, 0.7559, 0.2967, 0.2136, 134.98, 5.9131, 66.62, 0.5874, 0.7344),
        _published("RealSR", "Table 1", TSD_SR_COLUMNS, 24.81, 0.7172, 0.2743, 0.2104, 114.45, 5.1298, 71.19, 0.6347, 0.7160),
        _published("DIV2K-Val", "Table 1", TSD_SR_COLUMNS, 23.02, 0.5808, 0.2673, 0.1821, 29.16, 4.3244, 71.69, 0.6192, 0.7416),
    ),
    sides=(Sides(512, 512, 512),),
    notes=("The published numbers come from other weights than the demo's (tsdsr-mse) and the colour fix adain, at scale 4.",),
)

GENDR_COLUMNS = "PSNR SSIM LPIPS NIQE LIQE CLIPIQA MUSIQ Q-Align"
DEPICTQA = Column("DepictQA", reason="a language model compares it with other methods' results, pair by pair")
GENDR = Protocol(
    "gendr",
    "GenDR, Tables 2a, 2b, 2c and 3",
    (
        *PAIRS, Column("PI", "pyiqa:pi"), NIQE, Column("LIQE", "pyiqa:liqe"), MANIQA, CLIPIQA, MUSIQ,
        Column("ARNIQA", "pyiqa:arniqa"), Column("Q-Align", "pyiqa:qalign"), DEPICTQA,
    ),
    (
        _published("ImageNet-Test", "Table 2a", GENDR_COLUMNS, 24.14, 0.6878, 0.2652, 4.1336, 4.8096, 0.7395, 74.68, 4.3612),
        _published("RealSR", "Table 2b", GENDR_COLUMNS, 23.18, 0.7135, 0.2859, 4.1588, 4.1906, 0.7014, 68.36, 4.2388),
        _published(
            "RealSet80", "Table 2c", "PI ARNIQA DepictQA NIQE LIQE CLIPIQA MUSIQ Q-Align",
            3.5518, 0.7321, 78.14, 3.9750, 4.5248, 0.7424, 71.57, 4.4525,
        ),
        _published("RealLR200", "Table 3", "LIQE MANIQA CLIPIQA MUSIQ Q-Align", 4.4656, 0.4882, 0.7269, 72.36, 4.4768),
    ),
    notes=(OPEN_SIZES, OPEN_COLOUR),
)  # fmt: skip

IDS = Column("IDS", needs_reference=True, reason="likeness of faces needs an ArcFace network, which pyiqa has not")
INSTAREVIVE = Protocol(
    "instarevive",
    "InstaRevive (ICLR 2025), Tables 1, 2 and 4; PSNR and SSIM on Y of YCbCr, the others by pyiqa's defaults",
    (*PAIRS, FID, IDS, MANIQA, MUSIQ, NIQE, CLIPIQA),
    (
        _published("CelebA-Test", "Table 1", "PSNR SSIM LPIPS FID IDS", 22.3259, 0.6109, 0.4025, 19.78, 0.65),
        _published("LFW-Test", "Table 1", "FID", 38.73),
        _published("WIDER-Test", "Table 1", "FID", 35.29),
        _published("RealSet65", "Table 2", "MANIQA MUSIQ NIQE CLIPIQA", 0.4571, 65.849, 4.1995, 0.6755),
        _published("RealSR", "Table 2", "MANIQA MUSIQ NIQE CLIPIQA", 0.4722, 64.535, 4.2781, 0.6577),
        _published("ImageNet-Test", "Table 4", "PSNR SSIM LPIPS", 25.77, 0.721, 0.232),
    ),
    notes=(OPEN_SIZES, "The paper does not say which folder its FID of LFW-Test and WIDER-Test compares with."),
)

INSTANTIR_COLUMNS = "PSNR SSIM LPIPS CLIPIQA MANIQA MUSIQ NIQE"
INSTANTIR = Protocol(
    "instantir",
    "InstantIR, Tables 1a (512 px) and 1b (1024 px)",
    (*PAIRS, CLIPIQA, MANIQA, MUSIQ, NIQE),
    (
        _published("synthetic, 512 px", "Table 1a", INSTANTIR_COLUMNS, 18.54, 0.5126, 0.3986, 0.5497, 0.4379, 68.59, 4.37),
        _published("real, 512 px", "Table 1a", INSTANTIR_COLUMNS, 21.75, 0.6766, 0.3686, 0.5401, 0.4819, 65.32, 6.06),
        _published("synthetic, 1024 px", "Table 1b", INSTANTIR_COLUMNS, 18.80, 0.5076, 0.3903, 0.6111, 0.4303, 66.09, 4.095),
        _published("real, 1024 px", "Table 1b", INSTANTIR_COLUMNS, 21.89, 0.6879, 0.3601, 0.5647, 0.4389, 62.58, 8.024),
    ),
    sides=(Sides(512, 512, 512), Sides(1024, 1024, 512, "centre"), Sides(1024, 512, 512, "shrunk")),
    notes=(
        OPEN_COLOUR + " Its PSNR and SSIM of BSRGAN on real pictures of 512 px are those of TSD-SR's Table 7.",
        "512 px: results of 1024 px are shrunk, here bicubically. 1024 px: the paper measures `the cropped 512 area`, read as the centre.",
        "NIQE of Table 1a is known to two digits only.",
    ),
)

FLUXIR_COLUMNS = "CLIPIQA MUSIQ MANIQA PSNR SSIM LPIPS"
FLUXIR = Protocol(
    "fluxir",
    "FluxIR, Table 1",
    (*PAIRS, Column("CLIPIQA", "pyiqa:clipiqa+_vitL14_512"), MUSIQ, MANIQA_PIPAL),
    (
        _published("DIV2K-Val", "Table 1", FLUXIR_COLUMNS, 0.5934, 69.6956, 0.6331, 19.3811, 0.4574, 0.3888),
        _published("RealSR", "Table 1", FLUXIR_COLUMNS, 0.5413, 67.4536, 0.6334, 20.7176, 0.5269, 0.3672),
        _published("DrealSR", "Table 1", FLUXIR_COLUMNS, 0.5136, 66.6202, 0.6024, 21.3549, 0.5675, 0.4310),
        _published("RealLQ250", "Table 1", "CLIPIQA MUSIQ MANIQA", 0.5639, 70.7770, 0.6314),
    ),
    sides=(Sides(1024, 1024, 1024),),
    notes=(OPEN_COLOUR,),
)

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in (TSD_SR, GENDR, INSTAREVIVE, INSTANTIR, FLUXIR)}
