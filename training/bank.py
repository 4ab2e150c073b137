"""Crops that are cut, degraded and encoded once and kept on disk: what a stage in latents would else do anew for every batch."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ..core.errors import FileAccessError
from ..core.folders import user_data_directory
from .data import Batch, Batches, batch_loader
from .latents import Autoencoder
from .recipe import DataSettings
from .sources import picture_source

log = logging.getLogger("kintsugi")

CHUNK = 16
FACTS = "facts.json"


class Bank:
    """`count` crops of a data section and their latents, memory-mapped; made at first use in the user's data folder.

    Which crops depends on the data section and the VAE alone, so that recipes share a bank, and a larger one begins with a smaller one.
    """

    def __init__(self, data: DataSettings, count: int, vae: Autoencoder) -> None:
        self.folder = _place(data, count, vae)
        if not (self.folder / FACTS).exists():
            _make(self.folder, data, count, vae)
        facts = json.loads((self.folder / FACTS).read_text(encoding="utf-8"))
        self.names: list[str] = facts["names"][:count]
        self.captions: list[str] = facts["captions"]
        self.sizes = torch.tensor(facts["sizes"])
        self.arrays: dict[str, NDArray[np.generic]] = {
            path.stem: np.load(path, mmap_mode="r") for path in sorted(self.folder.glob("*.npy"))
        }

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """The crops of these indices."""
        arrays = {name: torch.from_numpy(array[chosen]) for name, array in self.arrays.items()}
        names = tuple(self.names[index] for index in chosen)
        captions = tuple(self.captions[index] for index in chosen)
        clean, high = _as_pictures(arrays["high_quality"]), arrays["high_latent"].float()
        spoilt, low = (_as_pictures(arrays["low_quality"]), arrays["low_latent"].float()) if "low_latent" in arrays else (None, None)
        return Batch(names, clean, spoilt, captions, self.sizes[chosen], high, low)


class BankBatches(Dataset[Batch]):
    """Item n is the n-th batch of `count` crops of the bank, chosen by the seed and n."""

    def __init__(self, bank: Bank, seed: int, count: int) -> None:
        self._bank, self._seed, self._count = bank, seed, count

    def __getitem__(self, index: int) -> Batch:
        return self._bank.batch(np.random.default_rng([self._seed, index]).integers(len(self._bank.names), size=self._count))


def _as_pictures(levels: Tensor) -> Tensor:
    """[B, 3, S, S] in 0..1 of uint8 [B, S, S, 3]."""
    return levels.permute(0, 3, 1, 2).float() / 255


def _place(data: DataSettings, count: int, vae: Autoencoder) -> Path:
    """The smallest bank that holds so many of these crops, or where one is to be made."""
    banks, name = user_data_directory() / "banks", f"pairs-{_fingerprint(data, vae)}"
    made = {int(facts.parent.name.split("-")[-1].partition("x")[0]): facts.parent for facts in banks.glob(f"{name}-*/{FACTS}")}
    enough = min((number for number in made if number >= count), default=None)
    return banks / f"{name}-{count}x{data.crop}" if enough is None else made[enough]


def _fingerprint(data: DataSettings, vae: Autoencoder) -> str:
    digest = hashlib.sha256(data.model_dump_json(exclude={"bank", "workers"}, exclude_defaults=True).encode())
    for name, tensor in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _make(folder: Path, data: DataSettings, count: int, vae: Autoencoder) -> None:
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        draft.mkdir(parents=True)
        _fill(draft, data, count, vae)
        draft.rename(folder)
    except OSError as error:
        raise FileAccessError(
            f"the bank of training crops cannot be written: {error.strerror or error}.",
            where=str(folder),
            way_out=f"Choose a user data folder with {count * data.crop**2 * 12 / 1e9:.1f} GB of free space, or a smaller data.bank.",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    log.info("Encoded %d training crops into %s.", count, folder)


def _fill(draft: Path, data: DataSettings, count: int, vae: Autoencoder) -> None:
    chunks = Batches(data, picture_source(data), data.picture_seed, CHUNK)
    names: list[str] = []
    captions: list[str] = []
    sizes: list[list[float]] = []
    arrays: dict[str, NDArray[np.generic]] = {}
    device = next(vae.parameters()).device
    numbers = range(-(-count // CHUNK))
    loader = batch_loader(chunks, numbers, data.workers)
    for batch in tqdm(loader, desc="Encoding training crops", unit="chunk", total=len(numbers)):
        begin = len(names)
        end = min(count, begin + CHUNK)
        for name, values in _encoded(batch, vae, device).items():
            if name not in arrays:
                arrays[name] = np.lib.format.open_memmap(draft / f"{name}.npy", "w+", values.dtype, (count, *values.shape[1:]))
            arrays[name][begin:end] = values[: end - begin]
        names += batch.names[: end - begin]
        captions += batch.captions[: end - begin]
        sizes += batch.sizes[: end - begin].tolist()
    (draft / FACTS).write_text(json.dumps({"names": names, "captions": captions, "sizes": sizes}), encoding="utf-8")


def _encoded(batch: Batch, vae: Autoencoder, device: torch.device) -> dict[str, NDArray[np.generic]]:
    """What the bank keeps of a batch: pictures in 8 bits, the modes of their posteriors in fp16."""
    kept: dict[str, NDArray[np.generic]] = {}
    for kind, pictures in (("high", batch.high_quality), ("low", batch.low_quality)):
        if pictures is not None:
            kept[f"{kind}_quality"] = (pictures * 255).round().byte().permute(0, 2, 3, 1).numpy()
            kept[f"{kind}_latent"] = vae.encode(pictures.to(device)).half().cpu().numpy()
    return kept
