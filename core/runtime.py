"""The host a method runs on: device, dtype, folders, progress and interruption, behind one small interface.

Methods and nodes ask `current_host()`; ComfyUI, the command line, the server and tests each put their own there.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from .errors import KintsugiError, OutOfMemoryError
from .folders import Folders
from .module_tensors import bring

log = logging.getLogger("kintsugi")

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


# Makes a picture [H, W, 3] in 0..1, at some cost.
MakesPicture = Callable[[], Tensor]


class Progress(Protocol):
    """A bar of known length. Advancing also looks whether the person cancelled (raises Interrupted)."""

    def advance(self, steps: int = 1, preview: MakesPicture | None = None) -> None:
        """preview: asked for its picture only where the host can show one."""


class Host(Protocol):
    """What a method may ask of the program it runs in.

    stores_workflows: whether pictures are written with the workflow that made them. vae_dtype, text_dtype: what VAEs and text encoders
    compute in whatever is chosen for the rest; None: as the rest. spares_memory: weights are offloaded in groups where nothing is chosen.
    """

    device: torch.device
    dtype: torch.dtype
    micro_batch: int
    folders: Folders
    stores_workflows: bool
    vae_dtype: torch.dtype | None
    text_dtype: torch.dtype | None
    spares_memory: bool

    def hold(self, network: nn.Module) -> None:
        """Bring a network's weights to the device. A host with other models may send them away while nothing of ours runs; they come back
        when one of the network's modules is called, and before that when it is held again."""

    def make_room(self, size: float = math.inf) -> bool:
        """Free that many bytes of the device, by sending away what is held there, for tensors that come and go; whether any could go."""

    def progress(self, total: int, label: str) -> Progress:
        """A bar of that many steps."""

    def check_interrupted(self) -> None:
        """Raise Interrupted when the person cancelled."""


class SilentProgress:
    """Counts nothing, but still notices an interruption."""

    def __init__(self, check_interrupted: Callable[[], None]) -> None:
        self._check = check_interrupted

    def advance(self, steps: int = 1, preview: MakesPicture | None = None) -> None:
        """Looks whether the person cancelled, and shows nothing."""
        self._check()


@dataclass
class LocalHost:
    """A host without a person: the default of the library and of tests."""

    device: torch.device = field(default_factory=lambda: best_device())
    dtype: torch.dtype = torch.float32
    micro_batch: int = 0
    folders: Folders = field(default_factory=Folders)
    stores_workflows: bool = True
    vae_dtype: torch.dtype | None = None
    text_dtype: torch.dtype | None = None
    spares_memory: bool = False

    def __post_init__(self) -> None:
        if self.micro_batch == 0:
            self.micro_batch = 1 if self.device.type == "cpu" else 4

    def hold(self, network: nn.Module) -> None:
        bring(network, self.device)

    def make_room(self, size: float = math.inf) -> bool:
        return False

    def progress(self, total: int, label: str) -> Progress:
        return SilentProgress(self.check_interrupted)

    def check_interrupted(self) -> None:
        return None


def best_device() -> torch.device:
    """CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def best_dtype(device: torch.device) -> torch.dtype:
    """What `auto` means: float32 on the CPU (exact, and no slower there), bfloat16 elsewhere, float16 on older CUDA devices."""
    if device.type == "cpu":
        return torch.float32
    return torch.float16 if device.type == "cuda" and not torch.cuda.is_bf16_supported() else torch.bfloat16


def available_ram() -> int:
    """Bytes of memory that can be had without swapping; psutil comes with accelerate."""
    import psutil

    return int(psutil.virtual_memory().available)


_host: ContextVar[Host | None] = ContextVar("kintsugi_host", default=None)
_default_host: Callable[[], Host] = LocalHost


def set_default_host(factory: Callable[[], Host]) -> None:
    """Called once by whoever embeds the library, before any method runs."""
    global _default_host
    _default_host = factory


def current_host() -> Host:
    """The host of this context: that of using_host(), else one made by the factory of set_default_host()."""
    host = _host.get()
    if host is None:
        host = _default_host()
        _host.set(host)
    return host


@contextmanager
def using_host(host: Host) -> Iterator[Host]:
    """Everything inside the block runs on this host."""
    token = _host.set(host)
    try:
        yield host
    finally:
        _host.reset(token)


_most_rows: ContextVar[int | None] = ContextVar("kintsugi_most_rows", default=None)


@contextmanager
def rows_per_call(rows: int) -> Iterator[None]:
    """Inside the block run_model() calls a network with at most so many rows. For work that has as many, or a multiple, whatever
    else there is to do: the host's micro-batch would only be filled up with copies."""
    token = _most_rows.set(min(rows, _most_rows.get() or rows))
    try:
        yield
    finally:
        _most_rows.reset(token)


def run_model(model: Callable[..., Tensor], *inputs: Tensor, **fixed: object) -> Tensor:
    """model(*inputs, **fixed) in constant micro-batches: the one way every network here is called.

    inputs: tensors with equal first dimension B; fixed arguments are passed to every call unchanged and hold no
    batch. Results of convolutions and matrix products depend on the batch size in their last bits, so each call has
    exactly `host.micro_batch` rows, or those of rows_per_call(); a short rest is padded by repeating its last row and cut again.
    """
    host = current_host()
    size = min(host.micro_batch, _most_rows.get() or host.micro_batch)
    results = []
    for start in range(0, inputs[0].shape[0], size):
        host.check_interrupted()
        rows = [tensor[start : start + size] for tensor in inputs]
        count = rows[0].shape[0]
        padded = [torch.cat([row, row[-1:].expand(size - count, *row.shape[1:])]) for row in rows] if count < size else rows
        results.append(model(*padded, **fixed)[:count])
    return torch.cat(results)


def is_out_of_memory(error: BaseException) -> bool:
    """True for CUDA's and MPS's out-of-memory errors and for the CPU allocator's (Linux and Windows word it differently)."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    words = ("DefaultCPUAllocator", "not enough memory", "MPS backend out of memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


Result = TypeVar("Result")


def with_smaller_tiles(run: Callable[[int], Result], tile: int, minimum: int) -> Result:
    """run(tile), and on out-of-memory again with half the tile, down to `minimum` (pixels or latent pixels). What the host's other
    models occupy is freed before a tile is made smaller.

    Raises OutOfMemoryError when the smallest tile does not fit either.
    """
    alone = False
    while True:
        try:
            return run(tile)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if not alone:
                alone = True
                if current_host().make_room():
                    log.warning("Out of memory: trying again with nothing else on the device.")
                    continue
            if tile // 2 < minimum:
                way_out = "Close other programs, choose dtype bf16, or a smaller picture or scale."
                raise OutOfMemoryError(f"tiles of {tile} pixels do not fit the memory either.", way_out=way_out) from error
            tile //= 2
            log.warning("Out of memory: trying again with tiles of %d.", tile)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def require_finite(tensor: Tensor, name: str) -> None:
    """Raise KintsugiError when the tensor has NaN or infinite values."""
    if not torch.isfinite(tensor).all():
        bad = int((~torch.isfinite(tensor)).sum())
        raise KintsugiError(
            f"{name} has {bad} values that are not finite numbers.", way_out="Check the node that made it, or choose dtype fp32."
        )
