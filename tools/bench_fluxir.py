"""What FluxIR's adapter costs a step of Flux: the plain network, the steered one, and how much more that is.

Measured with random weights in all 19 + 38 blocks, at a width that a CPU can carry, and counted for FLUX.1-dev itself. The adapter's
share falls with the width: its block is one of 57, its bottlenecks grow linearly and the blocks quadratically. A difference of some per
cent drowns in what other work takes of a machine, so the seconds are those that one thread computed; the two ways take turns, and the
fastest call of each counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from kintsugi.core.models.controlled_flux import controlled
from kintsugi.core.models.flux_adapter import FluxAdapter
from kintsugi.core.models.flux_tokens import image_positions, text_positions
from kintsugi.core.models.folding import memory_of
from kintsugi.headless.console import human_size, say_table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

LIMIT = 0.06
ROUNDS = 9


@dataclass(frozen=True)
class Subject:
    """A Flux with these changes to the class's defaults, which are FLUX.1-dev's, on a latent of side x side and a prompt of that length.

    counted: on the meta device, where operations are known and nothing is computed.
    """

    changes: dict[str, Any]
    side: int
    text: int
    counted: bool = False


def width(heads: int, **changes: Any) -> dict[str, Any]:
    """Changes to Flux: so many heads of 64 channels."""
    return {"num_attention_heads": heads, "attention_head_dim": 64, "axes_dims_rope": (16, 24, 24), **changes}


SUBJECTS = {
    "tiny": Subject(width(1, num_layers=2, num_single_layers=3), side=8, text=8),
    "512 wide, 256 x 256": Subject(width(8), side=32, text=64),
    "FLUX.1-dev, 1024 x 1024": Subject({}, side=128, text=512, counted=True),
}
DEFAULT = [name for name in SUBJECTS if name != "tiny"]


@dataclass(frozen=True)
class Ways:
    """A step of the same network, by itself and steered, and the bytes of their weights."""

    plain: Callable[[], Tensor]
    steered: Callable[[], Tensor]
    flux_bytes: int
    adapter_bytes: int


def built(subject: Subject) -> Ways:
    """Both ways, the adapter with controls that are not zero."""
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    with torch.device("meta" if subject.counted else "cpu"):
        flux = FluxTransformer2DModel.from_config({"guidance_embeds": True, **subject.changes}).eval()
        adapter = FluxAdapter.from_transformer(flux, text_tokens=subject.text).eval()
        for layer in (*adapter.se_z, *adapter.se_p):
            torch.nn.init.normal_(layer.excite.weight, std=0.02)
        z_t, z_lq = torch.randn(2, 1, (subject.side // 2) ** 2, flux.config.in_channels)
        prompt = torch.randn(1, subject.text, flux.config.joint_attention_dim)
        pooled, t, guidance = torch.randn(1, flux.config.pooled_projection_dim), torch.rand(1), torch.rand(1)
        ids, text_ids = image_positions(subject.side, subject.side), text_positions(subject.text)

    @torch.inference_mode()
    def plain() -> Tensor:
        return flux(z_t, prompt, pooled, t, ids, text_ids, guidance, return_dict=False)[0]

    @torch.inference_mode()
    def steered() -> Tensor:
        with controlled(flux, adapter) as network:
            return network(z_t, prompt, pooled, t, guidance, z_lq, image_ids=ids)

    return Ways(plain, steered, memory_of(flux), memory_of(adapter))


def fastest_in_turns(ways: Ways) -> tuple[float, float]:
    """CPU seconds of the fastest call, plain and steered, after one of each that does not count."""
    seconds: dict[Callable[[], Tensor], list[float]] = {ways.plain: [], ways.steered: []}
    for number in range(ROUNDS + 1):
        for call, found in seconds.items():
            started = time.process_time()
            call()
            if number:
                found.append(time.process_time() - started)
    return min(seconds[ways.plain]), min(seconds[ways.steered])


def operations(call: Callable[[], Tensor]) -> int:
    """Floating point operations of the products in a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def rows_of(name: str) -> list[tuple[str, ...]]:
    subject = SUBJECTS[name]
    ways = built(subject)
    if subject.counted:
        plain, steered = operations(ways.plain) / 1e12, operations(ways.steered) / 1e12
        told = [f"{amount:.1f} TFLOP" for amount in (plain, steered)]
    else:
        plain, steered = fastest_in_turns(ways)
        told = [f"{seconds:.4f} CPU s" for seconds in (plain, steered)]
    both = ways.flux_bytes + ways.adapter_bytes
    return [
        (name, "Flux alone", told[0], human_size(ways.flux_bytes)),
        (name, "with the adapter", told[1], human_size(both)),
        (name, "more", f"{steered / plain - 1:.1%} (at most {LIMIT:.0%})", f"{both / ways.flux_bytes - 1:.1%}"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="What FluxIR's adapter costs a step of Flux.")
    parser.add_argument("--networks", nargs="*", choices=list(SUBJECTS), default=DEFAULT)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    say_table(("network", "way", "a step", "weights in fp32"), [row for name in chosen.networks for row in rows_of(name)])


if __name__ == "__main__":
    main()
