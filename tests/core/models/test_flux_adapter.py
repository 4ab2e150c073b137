"""FluxIR's adapter: as large as the paper says, the identity before training, and no guest that leaves traces on its Flux."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_files import GOLDEN
from kintsugi.core.errors import BadValueError, Interrupted
from kintsugi.core.models.controlled_flux import controlled
from kintsugi.core.models.flux_adapter import INJECTIONS, Bottleneck, FluxAdapter, Injection
from kintsugi.core.models.flux_tokens import image_positions, pack_latent, unpack_latent
from kintsugi.core.models.offload import Offload, place
from kintsugi.core.runtime import LocalHost, using_host
from tiny_flux import CONFIG, TEXT_TOKENS, tiny_adapter, tiny_flux
from torch import Tensor, nn

MANIFEST: dict[str, Any] = json.loads((GOLDEN / "fluxir" / "manifest.json").read_text(encoding="utf-8"))
FILE: dict[str, Any] = MANIFEST["files"]["fluxir_adapter.safetensors"]
BEFORE_SE = 387_176_704
# The paper's 387 M counts one of the two linear layers that read latents.
ONE_INPUT_LAYER = 64 * 3072 + 3072


def full_size(rank: int | None) -> FluxAdapter:
    with torch.device("meta"):
        return FluxAdapter(rank=rank)


def size_of(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize(
    ("rank", "elements", "printed"),
    [(16, 11_558_688, 11.6), (32, 22_767_168, 22.8), (64, 45_184_128, 45.2), (128, 90_018_048, 90.0), (None, 1_076_189_184, 1076.2)],
)
def test_bottlenecks_of_every_rank_are_as_large_as_the_papers(rank: int | None, elements: int, printed: float) -> None:
    adapter = full_size(rank)
    assert len(adapter.se_z) == len(adapter.se_p) == 57
    assert size_of(adapter.se_z, adapter.se_p) == elements
    assert round(elements / 1e6, 1) == printed
    assert size_of(adapter) == BEFORE_SE + elements


def test_without_bottlenecks_it_has_the_papers_387_million() -> None:
    adapter = full_size(32)
    own = size_of(adapter) - size_of(adapter.se_z, adapter.se_p)
    assert own == FILE["parameters_without_se"] == BEFORE_SE and own - ONE_INPUT_LAYER == 386_977_024
    assert round(own / 1e6) == round((own - ONE_INPUT_LAYER) / 1e6) == 387
    assert size_of(adapter) == FILE["parameters"] == 409_943_872
    parts = {"block": 339_831_296, "time_text_embed": 32_262_144, "context_embedder": 12_585_984, "control_in": ONE_INPUT_LAYER}
    assert {name: size_of(adapter.get_submodule(name)) for name in parts} == parts


def test_names_and_shapes_are_those_of_the_manifest() -> None:
    assert {name: list(tensor.shape) for name, tensor in full_size(32).state_dict().items()} == FILE["tensors"]


# --- the step it steers

LATENT, DEGRADED = (torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4))
IDS = image_positions(4, 6)


def given(dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Packed latent, prompt, pooled, t and guidance."""
    random = torch.Generator().manual_seed(5)
    prompt, pooled = torch.randn(2, TEXT_TOKENS, 24, generator=random), torch.randn(2, 20, generator=random)
    return tuple(tensor.to(dtype) for tensor in (pack_latent(LATENT), prompt, pooled, torch.tensor([0.3, 0.9]), torch.tensor([4.0, 2.0])))


def plain(flux: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    z_t, prompt, pooled, t, guidance = given(dtype)
    return flux(z_t, prompt, pooled, t, IDS, torch.zeros(TEXT_TOKENS, 3), guidance, return_dict=False)[0]


def steered(flux: Any, adapter: FluxAdapter, strength: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    with controlled(flux, adapter, dtype) as network:
        return network(*given(), pack_latent(DEGRADED), image_ids=IDS, strength=strength)


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_an_untrained_adapter_changes_no_bit(injection: Injection, dtype: torch.dtype) -> None:
    flux = tiny_flux()
    adapter = place(tiny_adapter(flux, trained=False, injection=injection), dtype)
    assert all(torch.equal(own, flux.x_embedder.state_dict()[name].to(dtype)) for name, own in adapter.x_embedder.state_dict().items())
    place(flux, dtype)
    assert torch.equal(steered(flux, adapter, dtype=dtype), plain(flux, dtype))
    # Whatever the features are, controls of zero are none.
    for name, parameter in adapter.named_parameters():
        if "excite" not in name:
            parameter += 0.1 * torch.randn_like(parameter)
    assert torch.equal(steered(flux, adapter, dtype=dtype), plain(flux, dtype))


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.inference_mode()
def test_it_leaves_no_trace_on_its_flux(injection: Injection) -> None:
    flux = tiny_flux()
    expected, weights = plain(flux), {name: tensor.clone() for name, tensor in flux.state_dict().items()}
    adapter = tiny_adapter(flux, injection=injection)
    with controlled(flux, adapter) as network:
        found = network(*given(), pack_latent(DEGRADED), image_ids=IDS)
        # Another's call of the same network, while it is steered, is not.
        assert torch.equal(plain(flux), expected)
    assert not torch.allclose(found, expected, rtol=1e-2)
    assert torch.equal(plain(flux), expected)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in flux.modules())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in flux.state_dict().items())


@torch.inference_mode()
def test_strength_multiplies_every_control_and_text_counts_too() -> None:
    flux = tiny_flux()
    adapter = tiny_adapter(flux)
    half = steered(flux, adapter, strength=0.5)
    for name, parameter in adapter.named_parameters():
        if "excite" in name:
            parameter *= 0.5
    assert torch.allclose(steered(flux, adapter), half, atol=1e-6)
    for layer in adapter.se_p:
        for parameter in layer.excite.parameters():
            parameter.zero_()
    assert not torch.allclose(steered(flux, adapter), half, atol=1e-4)


@pytest.mark.parametrize("rank", [3, None])
@torch.inference_mode()
def test_a_control_added_is_the_control_and_the_tokens(rank: int | None) -> None:
    layer = Bottleneck(12, rank)
    for parameter in layer.parameters():
        parameter += torch.randn_like(parameter)
    tokens, features = torch.randn(2, 11, 12)[:, 4:], torch.randn(2, 7, 12)
    assert torch.allclose(layer.added_to(tokens, features, 0.7), tokens + 0.7 * layer(features), atol=1e-5)


@pytest.mark.parametrize(("injection", "lives"), [("after", False), ("before", True)])
def test_the_last_text_control_counts_only_before_its_block(injection: Injection, lives: bool) -> None:
    flux = tiny_flux()
    adapter = tiny_adapter(flux, injection=injection)
    steered(flux, adapter).square().mean().backward()
    silent = {name for name, parameter in adapter.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    assert silent == (set() if lives else {name for name, _ in adapter.named_parameters() if name.startswith("se_p.4.")})


@pytest.mark.parametrize("injection", INJECTIONS)
def test_gradients_are_the_same_when_they_are_checkpointed(injection: Injection) -> None:
    flux = tiny_flux().requires_grad_(False)
    gradients = []
    for checkpointed in (False, True):
        adapter = tiny_adapter(flux, injection=injection)
        if checkpointed:
            flux.enable_gradient_checkpointing()
        with controlled(flux, adapter) as network:
            network(*given(), pack_latent(DEGRADED), image_ids=IDS).square().mean().backward()
        gradients.append([parameter.grad for parameter in adapter.parameters() if parameter.grad is not None])
    assert all(torch.allclose(first, second, atol=1e-6) for first, second in zip(*gradients, strict=True))


# --- bases as people have them


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("offload", ["model", "group"])
@torch.inference_mode()
def test_a_flux_whose_weights_wait_in_memory_says_the_same_to_the_bit(injection: Injection, offload: Offload) -> None:
    flux = tiny_flux()
    adapter = tiny_adapter(flux, injection=injection)
    expected = steered(flux, adapter)
    waiting = place(tiny_flux(), torch.float32, offload)
    for _ in range(2):
        assert torch.equal(steered(waiting, adapter), expected)


@torch.inference_mode()
def test_a_flux_in_8_bits_keeps_them_and_an_untrained_adapter_changes_none() -> None:
    flux = place(tiny_flux(), torch.bfloat16, "layerwise fp8")
    kept = {name: tensor.dtype for name, tensor in flux.state_dict().items()}
    assert torch.float8_e4m3fn in kept.values()
    adapter = place(tiny_adapter(tiny_flux(), trained=False), torch.bfloat16)
    assert torch.equal(steered(flux, adapter, dtype=torch.bfloat16), plain(flux, torch.bfloat16))
    trained = place(tiny_adapter(tiny_flux()), torch.bfloat16)
    assert not torch.equal(steered(flux, trained, dtype=torch.bfloat16), plain(flux, torch.bfloat16))
    assert {name: tensor.dtype for name, tensor in flux.state_dict().items()} == kept


def test_no_adapter_begins_as_a_copy_of_quantised_weights() -> None:
    flux = place(tiny_flux(), torch.bfloat16, "layerwise fp8")
    with pytest.raises(BadValueError, match=r"Flux: its x_embedder is kept as torch\.float8_e4m3fn"):
        FluxAdapter.from_transformer(flux)


@pytest.mark.parametrize("changes", [{"num_single_layers": 4}, {"guidance_embeds": False}, {"axes_dims_rope": (8, 4, 4)}], ids=str)
def test_an_adapter_of_another_flux_is_refused(changes: dict[str, Any]) -> None:
    (name,) = changes
    with (
        pytest.raises(BadValueError, match=f"it is made for another Flux: {name} is .*, the prior has"),
        controlled(tiny_flux(**changes), tiny_adapter(tiny_flux())),
    ):
        pass


def test_a_flux_without_guidance_has_an_adapter_without() -> None:
    flux = tiny_flux(guidance_embeds=False)
    adapter = tiny_adapter(flux)
    assert not any("guidance" in name for name in adapter.state_dict())
    assert steered(flux, adapter).isfinite().all()


@torch.inference_mode()
def test_a_shorter_prompt_takes_the_first_offsets_and_a_longer_one_is_refused() -> None:
    adapter = tiny_adapter(tiny_flux())
    z_t, prompt, *rest = given()
    features = adapter(z_t, pack_latent(DEGRADED), prompt[:, :3], *rest, IDS)
    assert features.text.shape == (2, 3, 32)
    with pytest.raises(BadValueError, match="the prompt has 10 tokens, at most 5 are possible"):
        adapter(z_t, pack_latent(DEGRADED), torch.cat([prompt, prompt], 1), *rest, IDS)


def test_another_injection_is_refused() -> None:
    with pytest.raises(BadValueError, match=r"there is no injection 'between'\. Known: after, before"):
        FluxAdapter.for_transformer(CONFIG, injection="between")


class CancelsAtBlock(LocalHost):
    """A person who cancels while the third block is asked for."""

    asked = 0

    def check_interrupted(self) -> None:
        self.asked += 1
        if self.asked == 3:
            raise Interrupted


@pytest.mark.parametrize("offload", ["none", "model", "group"])
@torch.inference_mode()
def test_a_step_ends_at_the_block_where_it_is_cancelled_and_the_next_run_is_sound(offload: Offload) -> None:
    flux = place(tiny_flux(), torch.float32, offload)
    adapter = tiny_adapter(tiny_flux())
    expected = steered(flux, adapter)
    with using_host(CancelsAtBlock(device=torch.device("cpu"))) as host, pytest.raises(Interrupted):
        steered(flux, adapter)
    assert host.asked == 3
    assert torch.equal(steered(flux, adapter), expected)


# --- files and tokens


def test_a_folder_of_diffusers_round_trips_to_the_bit(tmp_path: Path) -> None:
    adapter = tiny_adapter(tiny_flux(), injection="before")
    adapter.save_pretrained(tmp_path)
    found = FluxAdapter.from_pretrained(tmp_path)
    assert found.config.injection == "before" and found.config.rank == 4 and tuple(found.config.axes_dims_rope) == (4, 6, 6)
    tensors = found.state_dict()
    assert all(torch.equal(tensor, tensors.pop(name)) for name, tensor in adapter.state_dict().items()) and not tensors


def test_tokens_are_packed_as_in_fluxs_pipeline() -> None:
    from diffusers import FluxPipeline

    latent = torch.randn(2, 3, 6, 10)
    tokens = pack_latent(latent)
    assert torch.equal(tokens, FluxPipeline._pack_latents(latent, 2, 3, 6, 10))
    assert torch.equal(unpack_latent(tokens, 6, 10), latent)
    assert torch.equal(image_positions(6, 10), FluxPipeline._prepare_latent_image_ids(1, 3, 5, "cpu", torch.float32))
