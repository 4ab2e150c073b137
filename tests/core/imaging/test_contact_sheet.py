"""Pictures side by side on one sheet."""

from __future__ import annotations

import torch
from kintsugi.core.imaging.contact_sheet import contact_sheet


def pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 4, 6, 3, generator=torch.Generator().manual_seed(0))


def test_every_picture_stands_in_its_row_and_column_and_the_rest_is_white() -> None:
    five = pictures(5)
    sheet = contact_sheet(five, columns=3, gap=2)
    assert sheet.shape == (1, 2 * 4 + 2, 3 * 6 + 2 * 2, 3)
    seen = torch.zeros(sheet.shape[1:3], dtype=torch.bool)
    for index, picture in enumerate(five):
        top, left = index // 3 * 6, index % 3 * 8
        assert torch.equal(sheet[0, top : top + 4, left : left + 6], picture)
        seen[top : top + 4, left : left + 6] = True
    assert (sheet[0, ~seen] == 1).all()


def test_fewer_pictures_than_columns_make_no_empty_ones() -> None:
    two = pictures(2)
    assert torch.equal(contact_sheet(two, columns=4), torch.cat(list(two), dim=1)[None])
