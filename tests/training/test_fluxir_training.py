"""FluxIR's training: losses by their equations and by the golden vectors, and an adapter that comes out of a run and samples."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import parity
import pytest
import torch
from kintsugi.core.methods.fluxir import Options, restore_latent
from kintsugi.core.models.byte_text import ByteTextEncoder
from kintsugi.core.models.controlled_flux import controlled
from kintsugi.core.models.flux_adapter import INJECTIONS, FluxAdapter, Injection
from kintsugi.core.models.flux_tokens import image_positions, pack_latent, unpack_latent
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.runtime import DTYPES
from kintsugi.core.weights.files import read_weights, write_weights
from kintsugi.core.weights.fluxir import load_adapter
from kintsugi.core.weights.priors import read_prior
from kintsugi.training.adapters import checkpoint_gradients
from kintsugi.training.data import Batch
from kintsugi.training.losses import PixelForm, clamped_times, decoded_loss, implied_latents, velocity_loss
from kintsugi.training.recipe import load_recipe
from kintsugi.training.run import train
from kintsugi.training.stages import build_stage
from kintsugi.training.stages.fluxir import Drawn, FluxIrSettings, FluxIrStage, SteeredFlux, steering_losses
from originals.fluxir_folder import write_training_folder
from tiny_flux import CONFIG, TEXT_TOKENS, tiny_adapter, tiny_flux, tiny_prompt
from torch import Tensor

GOLDEN = Path(parity.__file__).parent / "golden" / "fluxir"

# --- the equations


def test_every_golden_loss_gradient_and_time_holds() -> None:
    checks = parity.run_parity("fluxir", GOLDEN, "training")
    assert [parity.line(check) for check in checks if not check.passed] == []
    assert {check.tensor.split(".")[0] for check in checks} == {"loss", "grad", "sampler"} and len(checks) == 11


def test_a_folder_with_other_numbers_made_by_other_code_holds(tmp_path: Path) -> None:
    """Another alpha, injection and pixel form, no guidance embedder, and the gradient of every tensor of the adapter."""
    write_training_folder(tmp_path / "other")
    checks = parity.run_parity("fluxir", tmp_path / "other", "training")
    assert [parity.line(check) for check in checks if not check.passed] == []
    for file in ("guided", "plain"):
        tensors = {check.tensor for check in checks if check.file == f"{file}.json"}
        assert {"loss.total", "sampler.t", "grad.theta_y", "grad.se_p.4.excite.bias"} <= tensors


def test_times_are_uniform_and_now_and_then_the_ends_themselves() -> None:
    u = torch.rand(200_000, generator=torch.Generator().manual_seed(0)) * 1.1 - 0.05
    t = clamped_times(u)
    for end in (0, 1):
        assert abs((t == end).double().mean() - 0.05 / 1.1) < 2e-3
    assert abs(t.mean() - 0.5) < 5e-3 and torch.equal(t[(u > 0) & (u < 1)], u[(u > 0) & (u < 1)])


def drawn(seed: int = 0, channels: int = 4) -> Drawn:
    random = torch.Generator().manual_seed(seed)
    return Drawn(*(torch.randn(2, channels, 4, 6, generator=random) for _ in range(3)), torch.tensor([0.3, 0.9]))


def test_a_velocity_without_fault_costs_nothing_in_any_form() -> None:
    one = drawn()
    velocity = one.noise - one.clean
    assert velocity_loss(velocity, one.clean, one.noise) == 0
    for form in ("noisy", "clean"):
        implied, expected = implied_latents(velocity, one.clean, one.noise, one.t, form)
        assert torch.allclose(implied, expected, atol=1e-6)


def test_both_forms_weigh_one_error_by_the_time_with_opposite_signs() -> None:
    one, velocity = drawn(), torch.randn(2, 4, 4, 6)
    error = one.t.view(2, 1, 1, 1) * (velocity - (one.noise - one.clean))
    forms: tuple[PixelForm, ...] = ("noisy", "clean")
    noisy, clean = (implied_latents(velocity, one.clean, one.noise, one.t, form) for form in forms)
    assert torch.allclose(noisy[0] - noisy[1], error, atol=1e-6) and torch.allclose(clean[0] - clean[1], -error, atol=1e-6)
    assert torch.equal(clean[1], one.clean)
    at_start = implied_latents(velocity, one.clean, one.noise, torch.zeros(2), "noisy")
    assert decoded_loss(*at_start) == 0


# --- the network that is trained


def told() -> tuple[Tensor, Tensor, Tensor]:
    """Prompt, pooled and guidance of two rows."""
    prompt = tiny_prompt("")
    assert prompt.pooled is not None
    return prompt.tokens.expand(2, -1, -1), prompt.pooled.expand(2, -1), torch.full((2,), 4.0)


@pytest.mark.parametrize("injection", INJECTIONS)
def test_training_sees_the_velocity_that_sampling_sees(injection: Injection) -> None:
    flux, one = tiny_flux(), drawn()
    adapter = tiny_adapter(flux, injection=injection)
    found = SteeredFlux(flux, adapter)(one.clean, one.degraded, one.t, *told())
    prompt, pooled, guidance = told()
    flux, adapter = tiny_flux(), tiny_adapter(tiny_flux(), injection=injection)
    with torch.no_grad(), controlled(flux, adapter) as network:
        tokens = [pack_latent(latent) for latent in (one.clean, one.degraded)]
        expected = network(tokens[0], prompt, pooled, one.t, guidance, tokens[1], image_ids=image_positions(4, 6))
    assert torch.equal(found, unpack_latent(expected, 4, 6))


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_forward_gives_every_parameter_a_gradient_and_the_flux_none(injection: Injection, checkpointing: bool) -> None:
    """Also with a single call each way, as processes that average gradients need it, and with blocks computed again."""
    flux = tiny_flux().requires_grad_(False)
    model = SteeredFlux(flux, tiny_adapter(flux, injection=injection))
    expected = gradients(deepcopy(model), None)
    if checkpointing:
        checkpoint_gradients(flux)
    found = gradients(model, None)
    assert found.keys() == {name for name, _ in model.named_parameters()} and not any("flux" in name for name in found)
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in found)
    silent = {name for name, gradient in found.items() if not gradient.any()}
    last = {f"adapter.se_p.4.{layer}.{part}" for layer in ("squeeze", "excite") for part in ("weight", "bias")}
    assert silent == (last if injection == "after" else set())
    assert all(parameter.grad is None for parameter in flux.parameters())


def gradients(model: SteeredFlux, decode: Any) -> dict[str, Tensor]:
    losses = steering_losses(model, drawn(), tiny_prompt(""), 4.0, decode, "noisy")
    sum(losses.values(), torch.zeros(())).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_the_pixel_loss_reaches_the_adapter_through_the_decoder() -> None:
    flux = tiny_flux().requires_grad_(False)
    model = SteeredFlux(flux, tiny_adapter(flux))
    without = gradients(deepcopy(model), None)
    decoder = torch.nn.Conv2d(4, 3, 3).requires_grad_(False)
    through = gradients(model, decoder)
    assert not torch.allclose(through["adapter.theta_p"], without["adapter.theta_p"], rtol=1e-2)
    assert all(parameter.grad is None for parameter in decoder.parameters())


# --- the stage

NETWORK = {**CONFIG, "in_channels": 64, "axes_dims_rope": [4, 6, 6]}
TEXT = {"tokens": TEXT_TOKENS, "width": CONFIG["joint_attention_dim"], "pooled": CONFIG["pooled_projection_dim"]}


@pytest.fixture
def prior(tmp_path: Path) -> Path:
    """A file as the prior's stage writes it: a tiny Flux over the embedded VAE."""
    parts = torch.nn.ModuleDict({"transformer": tiny_flux(in_channels=64), "text": ByteTextEncoder(**TEXT)})
    config = {"kind": "prior", "family": "flux", "transformer": NETWORK, "text": TEXT, "vae": "embedded", "largest_side": 8}
    write_weights(tmp_path / "prior.safetensors", dict(parts.state_dict()), config)
    return tmp_path / "prior.safetensors"


def stage_of(prior: Path, **settings: Any) -> FluxIrStage:
    stage = FluxIrStage(FluxIrSettings(base=str(prior), **{"text_tokens": TEXT_TOKENS, "rank": 4, **settings}))
    for module in (*stage.frozen.values(), stage.vae):
        module.requires_grad_(False)
    return stage


def batch() -> Batch:
    random = torch.Generator().manual_seed(4)
    pictures = [torch.rand(2, 3, 32, 32, generator=random) for _ in range(2)]
    return Batch(("one", "two"), *pictures, captions=("", ""), sizes=torch.zeros(2, 6))


def losses_of(stage: FluxIrStage, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return stage.losses("adapter", stage.model, batch(), frozenset({"velocity", "pixel"}), {})


def test_only_what_is_wanted_is_computed(prior: Path) -> None:
    stage = stage_of(prior)
    stage.vae.vae.decoder.register_forward_pre_hook(lambda *_: pytest.fail("nobody wanted pixels"))
    assert losses_of_velocity(stage).keys() == {"velocity"}


def losses_of_velocity(stage: FluxIrStage) -> dict[str, Tensor]:
    return stage.losses("adapter", stage.model, batch(), frozenset({"velocity"}), {})


def test_settings_of_the_ablations_change_what_the_paper_says_they_do(prior: Path) -> None:
    """Table 3: the sampler of times; section 4: the decoded latents; all else is drawn alike."""
    expected = losses_of(stage_of(prior))
    assert losses_of(stage_of(prior), seed=0) == expected
    assert losses_of(stage_of(prior, timesteps="logit-normal"))["velocity"] != expected["velocity"]
    other = losses_of(stage_of(prior, pixel_form="clean"))
    assert other["velocity"] == expected["velocity"] and other["pixel"] != expected["pixel"]


@pytest.mark.parametrize(("setting", "names"), [("offsets", ("theta_",)), ("text_controls", ("se_p.",))])
def test_what_an_ablation_leaves_out_is_not_trained_and_changes_nothing(prior: Path, setting: str, names: tuple[str, ...]) -> None:
    """Table 6: without theta_p and theta_y, or without SE_p."""
    stage = stage_of(prior, **{setting: False})
    sum(losses_of(stage).values(), torch.zeros(())).backward()
    for name, parameter in stage.adapter.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None) == (not name.startswith(names))
    out = [parameter for name, parameter in stage.adapter.named_parameters() if name.startswith(names) and "squeeze" not in name]
    assert out and not any(parameter.any() for parameter in out)


def test_without_weights_the_full_recipe_is_as_large_as_the_specification_says() -> None:
    with torch.device("meta"):
        stage = build_stage(load_recipe("fluxir"))
    assert isinstance(stage, FluxIrStage)
    assert sum(parameter.numel() for parameter in stage.networks["adapter"].parameters() if parameter.requires_grad) == 409_943_872


def test_a_run_exports_an_adapter_that_loads_and_samples(prior: Path, drawn_pictures: Path, tmp_path: Path) -> None:
    recipe = {
        "steps": "2", "batch": "2", "checkpoint_every": "2", "validate_every": "2", "precision": "'no'",
        "phases": "[{until: 1, weights: {velocity: 1.0}}, {until: 2, weights: {velocity: 1.0, pixel: 0.5}}]",
        "data.source": "folder", "data.folder": str(drawn_pictures), "data.crop": "32", "data.bank": "null", "data.workers": "0",
        "settings.base": str(prior), "settings.text_tokens": str(TEXT_TOKENS), "settings.rank": "4", "settings.sampling_steps": "2",
    }  # fmt: skip
    files = train("mini-fluxir", tmp_path / "run", recipe, cpu=True)
    assert [file.name for file in files] == ["mini-fluxir.safetensors", "mini-fluxir.md"]
    assert {tensor.dtype for tensor in read_weights(files[0])[0].values()} == {DTYPES["fp16"]}
    adapter = load_trained(files[0])
    assert any(parameter.any() for layer in adapter.se_z for parameter in layer.excite.parameters())
    flux = read_prior(prior, torch.float32, "none")
    restored = restore_latent(flux, adapter, torch.randn(1, 16, 12, 8), 0, Options(steps=2))
    assert restored.shape == (1, 16, 12, 8) and restored.isfinite().all()


def load_trained(file: Path) -> FluxAdapter:
    """As the node does, from the models folder."""
    from kintsugi.core.runtime import current_host

    folder = current_host().folders.models / "kintsugi" / "fluxir"
    folder.mkdir(parents=True)
    file.rename(folder / "fluxir.safetensors")
    return load_adapter("auto")


def test_prompts_are_the_empty_one_for_every_row(prior: Path) -> None:
    stage = stage_of(prior)
    assert isinstance(stage.prompt, PromptEmbedding) and stage.prompt is stage.prompt
    assert stage.prompt.tokens.shape == (1, TEXT_TOKENS, CONFIG["joint_attention_dim"])
