"""Banks of encoded crops: what they hold, and that they are made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kintsugi.core.errors import FileAccessError
from kintsugi.core.models.mini import build_vae, vae_config
from kintsugi.training.bank import Bank, BankBatches
from kintsugi.training.data import Batches
from kintsugi.training.latents import Autoencoder
from kintsugi.training.recipe import DataSettings
from kintsugi.training.sources import picture_source


@pytest.fixture
def vae() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(build_vae(vae_config((8, 8, 8), 4, 1, 4))).requires_grad_(False)


@pytest.fixture
def data(drawn_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSettings:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return DataSettings(source="folder", folder=drawn_pictures, crop=32, degradation="mild", bank=5, workers=0)


def test_a_bank_holds_the_crops_of_the_data_section_and_their_latents(data: DataSettings, vae: Autoencoder, drawn_pictures: Path) -> None:
    bank = Bank(data, 5, vae)
    batch = bank.batch(np.array([0, 3]))
    drawn = Batches(data, picture_source(data), data.picture_seed, 16)[0]
    assert batch.names == (drawn.names[0], drawn.names[3])
    assert torch.equal(batch.high_quality, drawn.high_quality[[0, 3]])
    assert drawn.low_quality is not None and batch.low_quality is not None and batch.low_latent is not None
    assert (batch.low_quality - drawn.low_quality[[0, 3]]).abs().max() <= 0.5 / 255 + 1e-6
    assert (batch.low_latent - vae.encode(drawn.low_quality[[0, 3]])).abs().max() < 0.01
    assert batch.high_latent is not None and batch.high_latent.shape == (2, 4, 8, 8)


def test_a_bank_is_made_once_and_another_vae_makes_another(data: DataSettings, vae: Autoencoder) -> None:
    first = Bank(data, 5, vae)
    made = (first.folder / "facts.json").stat().st_mtime_ns
    assert Bank(data, 5, vae).folder == first.folder
    assert (first.folder / "facts.json").stat().st_mtime_ns == made
    torch.nn.init.zeros_(vae.vae.decoder.conv_out.weight)
    assert Bank(data, 5, vae).folder != first.folder


def test_a_larger_bank_stands_for_a_smaller_one(
    data: DataSettings, vae: Autoencoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    large = Bank(data, 20, vae)
    part = Bank(data, 17, vae)
    assert part.folder == large.folder and part.names == large.names[:17]
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
    own = Bank(data, 17, vae)
    chosen = np.arange(17)
    assert own.folder != large.folder and own.names == part.names
    assert torch.equal(own.batch(chosen).high_quality, part.batch(chosen).high_quality)


def test_the_nth_batch_of_a_bank_depends_on_the_seed_and_n_alone(data: DataSettings, vae: Autoencoder) -> None:
    bank = Bank(data, 5, vae)
    one, again, other = (BankBatches(bank, seed, 4)[7].names for seed in (1, 1, 2))
    assert one == again != other


def test_a_bank_that_cannot_be_written_is_told_and_leaves_nothing(
    data: DataSettings, vae: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with pytest.raises(FileAccessError, match="bank of training crops"):
        Bank(data, 5, vae)
