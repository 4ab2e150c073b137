from __future__ import annotations

import pytest
import torch
from kintsugi.core.errors import BadValueError
from kintsugi.core.protocols import FLUXIR, GENDR, INSTANTIR, PROTOCOLS, TSD_SR, Protocol, find_protocol
from kintsugi.core.quality import METRICS, PYIQA_PREFIX
from torch.nn import functional as F

PICTURE = torch.rand(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(0))


def of(side: int) -> torch.Tensor:
    return PICTURE[..., :side, :side]


@pytest.fixture(params=PROTOCOLS.values(), ids=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return request.param


def test_columns_are_measures_that_exist_or_say_why_not(protocol: Protocol) -> None:
    for column in protocol.columns:
        assert column.metric in METRICS or column.of_folders or column.metric.startswith(PYIQA_PREFIX) or column.reason
        if column.metric in METRICS:
            assert column.needs_reference == METRICS[column.metric].needs_reference


def test_published_rows_fill_columns_of_the_protocol(protocol: Protocol) -> None:
    labels = [column.label for column in protocol.columns]
    assert len(set(labels)) == len(labels)
    used = {label for row in protocol.published for label in row.values}
    assert used == set(labels), "no column without a published value, no value without a column"


def test_numbers_are_those_of_the_papers() -> None:
    published = {(name, row.data_set): row.values for name, protocol in PROTOCOLS.items() for row in protocol.published}
    assert published["tsd-sr", "RealSR"]["PSNR"] == 24.81 and published["tsd-sr", "DIV2K-Val"]["CLIPIQA"] == 0.7416
    assert published["gendr", "RealSR"]["LPIPS"] == 0.2859 and published["gendr", "RealSet80"]["Q-Align"] == 4.4525
    assert published["instarevive", "CelebA-Test"]["FID"] == 19.78 and published["instarevive", "RealSR"]["MANIQA"] == 0.4722
    assert published["instantir", "real, 1024 px"]["SSIM"] == 0.6879
    assert published["fluxir", "RealLQ250"] == {"CLIPIQA": 0.5639, "MUSIQ": 70.7770, "MANIQA": 0.6314}


def test_pictures_are_compared_in_the_levels_of_8_bits(protocol: Protocol) -> None:
    side = protocol.sides[0].picture if protocol.sides else 40
    compared, reference = protocol.prepare(of(side), of(side))
    assert reference is not None and torch.equal(compared, (of(side) * 255).round() / 255) and torch.equal(compared, reference)
    again, alone = protocol.prepare(compared, None)
    assert alone is None and torch.equal(again, compared), "what was read from an 8-bit file stays"


def test_instantir_shrinks_or_cuts_what_is_of_1024_pixels() -> None:
    compared, reference = INSTANTIR.prepare(PICTURE, of(512))
    shrunk = F.interpolate(PICTURE, (512, 512), mode="bicubic", antialias=True).clamp(0, 1)
    assert torch.equal(compared, (shrunk * 255).round() / 255) and reference is not None and reference.shape == compared.shape
    compared, reference = INSTANTIR.prepare(PICTURE, PICTURE)
    assert torch.equal(compared, (PICTURE[..., 256:768, 256:768] * 255).round() / 255)
    assert reference is not None and torch.equal(compared, reference)


@pytest.mark.parametrize(
    ("protocol", "picture", "reference", "words"),
    [
        (TSD_SR, 500, 512, r"512 x 512 pixels, this one is 500 x 500 against 512 x 512"),
        (FLUXIR, 512, None, r"1024 x 1024 pixels, this one is 512 x 512"),
        (INSTANTIR, 512, 1024, r"1024 x 1024 against 512 x 512 pixels, this one is 512 x 512 against 1024 x 1024"),
        (GENDR, 40, 44, r"40 x 40 pixels, its reference 44 x 44"),
    ],
)
def test_other_sizes_are_refused_with_expected_and_found(protocol: Protocol, picture: int, reference: int | None, words: str) -> None:
    with pytest.raises(BadValueError, match=words):
        protocol.prepare(of(picture), None if reference is None else of(reference))


def test_unknown_protocol_is_said_with_the_known_ones() -> None:
    assert find_protocol("gendr") is GENDR
    with pytest.raises(BadValueError, match="tsd-sr, gendr, instarevive, instantir, fluxir"):
        find_protocol("lpips")
