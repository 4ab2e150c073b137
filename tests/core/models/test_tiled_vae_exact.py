"""Exact tiles: the result of the whole picture, with no more memory than promised."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import torch
from diffusers import AutoencoderKL
from kintsugi.core.models.mini import build_vae
from kintsugi.core.models.tiled_vae_exact import ChannelMoments, plan_exact, run_exact
from kintsugi.core.models.vae_layers import Coder, decoder_of, encoder_of
from kintsugi.core.runtime import LocalHost, using_host
from kintsugi.core.weights.configs import shipped_config
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from vae_examples import CHANNELS, LATENT_CHANNELS, half_flat, random_vae

TILE = 32
SIZES = [(21, 20), (20, 27)]  # Latent pixels: 2.5 tiles of 8 and more.


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def case(vae: AutoencoderKL, half: str, height: int, width: int) -> tuple[Coder, Tensor, Callable[[AutoencoderKL, Tensor], Tensor]]:
    """One half of the VAE, an input for it of height x width latent pixels, and how the whole of it is computed."""
    if half == "decoder":
        return decoder_of(vae), half_flat(LATENT_CHANNELS, height, width), lambda vae, latent: vae.decode(latent).sample
    downscale = 2 ** (len(vae.config.block_out_channels) - 1)
    pixels = half_flat(3, height * downscale, width * downscale)
    return encoder_of(vae), pixels, lambda vae, pixels: vae.encode(pixels).latent_dist.parameters


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("quant", [True, False])
@torch.no_grad()
def test_exact_tiles_give_what_the_whole_picture_gives(half: str, height: int, width: int, attention: bool, quant: bool) -> None:
    vae = random_vae(mid_block_add_attention=attention, use_quant_conv=quant, use_post_quant_conv=quant)
    coder, planes, whole = case(vae, half, height, width)
    assert relative_error(run_exact(coder, planes, TILE, ""), whole(vae, planes)) <= 1e-5


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize("channels", [(16, 8, 12, 8), (8, 8), (12,)])
@torch.no_grad()
def test_exact_tiles_are_no_further_from_the_truth_than_the_whole_picture(half: str, channels: tuple[int, ...]) -> None:
    vae = random_vae(
        block_out_channels=channels,
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        layers_per_block=2,
        mid_block_add_attention=True,
    )
    coder, planes, whole = case(vae, half, 23, 27)
    truth = whole(copy.deepcopy(vae).double(), planes.double())
    rounding = relative_error(whole(vae, planes), truth)
    assert relative_error(run_exact(coder, planes, TILE, ""), truth) <= max(2 * rounding, 3e-6)


@torch.no_grad()
def test_a_larger_micro_batch_gives_the_same() -> None:
    coder, planes, _ = case(random_vae(mid_block_add_attention=True), "decoder", 30, 21)
    one_by_one = run_exact(coder, planes, TILE, "")
    with using_host(LocalHost(device=torch.device("cpu"), micro_batch=4)):
        assert relative_error(run_exact(coder, planes, TILE, ""), one_by_one) <= 1e-5


@torch.no_grad()
def test_bf16_rounds_as_the_whole_picture_does() -> None:
    vae = random_vae(mid_block_add_attention=True)
    _, planes, whole = case(vae, "decoder", 30, 21)
    truth = whole(vae, planes)
    rounded = copy.deepcopy(vae).bfloat16()
    off = (whole(rounded, planes.bfloat16()).float() - truth).abs().mean()
    assert (run_exact(decoder_of(rounded), planes, TILE, "") - truth).abs().mean() <= 1.2 * off


def test_the_moments_of_parts_are_those_of_the_whole() -> None:
    values = torch.randn(8, 40, 30) * 1e-3 + 5
    values[:, :, 15:] = 4
    moments = ChannelMoments(8)
    for rows in values.split(9, dim=1):
        for part in rows.split(7, dim=2):
            moments.add(part)
    found = moments.of_groups(2)
    variance, mean = torch.var_mean(values.double().view(2, -1), dim=1, correction=0)
    torch.testing.assert_close(found.mean, mean, rtol=1e-7, atol=0)
    torch.testing.assert_close(found.variance, variance, rtol=1e-6, atol=0)


class LiveMemory(TorchDispatchMode):
    """Bytes of all storages made while it is on and not yet freed."""

    def __init__(self) -> None:
        super().__init__()
        self._alive: WeakKeyDictionary[torch.UntypedStorage, int] = WeakKeyDictionary()
        self.most = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device.type == "cpu":
                self._alive[tensor.untyped_storage()] = tensor.untyped_storage().nbytes()
        self.most = max(self.most, sum(self._alive.values()))
        return result


@contextmanager
def sizes_at_convolutions(model: nn.Module) -> Iterator[list[int]]:
    """Elements of every tensor that goes into or comes out of a convolution."""
    sizes: list[int] = []
    hooks = [
        module.register_forward_hook(lambda _, inputs, output: sizes.extend((inputs[0].numel(), output.numel())))
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    ]
    yield sizes
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@torch.no_grad()
def test_it_holds_two_activations_and_tiles(half: str) -> None:
    vae = random_vae(mid_block_add_attention=True)
    coder, planes, whole = case(vae, half, 40, 41)
    picture = planes[:1].clone()
    with sizes_at_convolutions(vae) as sizes:
        whole(vae, picture)
    widest, pixels_per_tile = max(sizes), CHANNELS[0] * TILE**2
    assert widest > 15 * pixels_per_tile
    with sizes_at_convolutions(vae) as sizes, LiveMemory() as memory:
        result = run_exact(coder, picture, TILE, "")
    assert max(sizes) <= CHANNELS[0] * (TILE + 8) ** 2
    assert plan_exact(coder, picture.shape, TILE).kept_bytes <= 2 * widest * 4
    assert memory.most <= (2 * widest + picture.numel() + result.numel() + 8 * pixels_per_tile) * 4


@pytest.mark.parametrize("name", ["sd3-vae", "vae-kl-f8-d16", "sd-vae-ft-ema"])
@pytest.mark.parametrize("half", ["encoder", "decoder"])
@torch.no_grad()
def test_published_vaes_keep_at_most_two_of_their_widest_activations(name: str, half: str) -> None:
    with torch.device("meta"):
        vae = build_vae(shipped_config(name))
        planes = torch.empty(1, 3, 4096, 4096) if half == "encoder" else torch.empty(1, vae.config.latent_channels, 512, 512)
        with sizes_at_convolutions(vae) as sizes:
            vae.encode(planes) if half == "encoder" else vae.decode(planes)
    coder = encoder_of(vae) if half == "encoder" else decoder_of(vae)
    assert plan_exact(coder, planes.shape, 512).kept_bytes <= 2 * max(sizes) * 4
