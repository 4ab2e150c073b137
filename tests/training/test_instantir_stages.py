"""InstantIR's three stages in small: what they compute, what they train, and that the nodes take what they export."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from kintsugi.core.errors import RecipeError
from kintsugi.core.methods.dcp_tokens import image_tokens
from kintsugi.core.models.dcp import ImageContext
from kintsugi.core.models.lora_switch import LoraSwitch
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights.priors import read_prior
from kintsugi.nodes.instantir import (
    KintsugiAdaResSampler,
    KintsugiDCPEncode,
    KintsugiLoadAggregator,
    KintsugiLoadDCP,
    KintsugiLoadPreviewer,
)
from kintsugi.training.adapters import checkpoint_gradients
from kintsugi.training.run import train
from small_instantir_stages import draw_pictures, drawn_batch, overrides, stage_of, write_prior
from torch import Tensor, nn
from torch.nn import functional as F

PARTS = ("dcp", "previewer", "aggregator")
WITHIN = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prior, pictures, and what two steps of every stage exported one after the other."""
    folder = tmp_path_factory.mktemp("instantir")
    write_prior(folder / "prior.safetensors")
    draw_pictures(folder / "pictures")
    for part in PARTS:
        train(f"mini-instantir-{part}", folder / part, overrides(part, folder, **before(folder, part)), cpu=True)
    return folder


@pytest.fixture(autouse=True)
def user_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompt embeddings are kept there."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def exported(folder: Path, part: str) -> Path:
    return folder / part / "export" / f"mini-instantir-{part}.safetensors"


def before(folder: Path, part: str) -> dict[str, str]:
    """What the stage of that part stands on."""
    return {earlier: str(exported(folder, earlier)) for earlier in PARTS[: PARTS.index(part)]}


def ready(folder: Path, part: str, **settings: Any) -> Any:
    """A stage as the engine prepares it, its last layers no longer zero."""
    stage = stage_of(part, folder, captions=True, **before(folder, part), **settings)
    for module in (*stage.frozen.values(), stage.vae):
        module.requires_grad_(False).eval()
    for parameter in networks_of(stage).parameters():
        parameter.requires_grad_(True)
        if not parameter.detach().any():
            nn.init.normal_(parameter, std=0.1)
    return stage


def networks_of(stage: Any) -> nn.Module:
    (network,) = stage.networks.values()
    return network


def loss_of(stage: Any, seed: int = 5, captions: tuple[str, ...] = ("a fox", "")) -> Tensor:
    (turn, (name,)) = next(iter(stage.turns.items()))
    torch.manual_seed(seed)
    losses = stage.losses(turn, stage.networks[turn], drawn_batch(captions), frozenset({name}), {})
    assert set(losses) == {name}
    return losses[name]


# --- what they train


@pytest.mark.parametrize("part", PARTS)
def test_gradients_reach_everything_that_is_trained_and_nothing_else(folder: Path, part: str) -> None:
    stage = ready(folder, part)
    loss_of(stage).backward()
    untouched = [name for name, parameter in networks_of(stage).named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert untouched == []
    trained = {id(parameter) for parameter in networks_of(stage).parameters()}
    others = [parameter for module in (*stage.frozen.values(), stage.vae) for parameter in module.parameters()]
    assert others and all(id(parameter) not in trained and parameter.grad is None for parameter in others)


@pytest.mark.parametrize("part", PARTS)
def test_activations_that_are_computed_again_give_the_same_gradients(folder: Path, part: str) -> None:
    stage = ready(folder, part)
    network = networks_of(stage)
    gradients = []
    for _ in range(2):
        network.zero_grad()
        loss_of(stage).backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None])
        checkpoint_gradients(stage.ground.unet)
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_the_dcp_starts_as_the_attention_to_text(folder: Path) -> None:
    stage = stage_of("dcp", folder)
    unet, layers = stage.ground.unet, stage.model.dcp.layers
    names = list(unet.attn_processors)
    assert layers
    for index, layer in layers.items():
        attention = unet.get_submodule(names[index].removesuffix(".processor"))
        assert torch.equal(layer.to_k_ip.weight, attention.to_k.weight) and torch.equal(layer.to_v_ip.weight, attention.to_v.weight)
        linears = (layer.ln_k_ip.linear, layer.ln_v_ip.linear)
        assert not any(parameter.any() for linear in linears for parameter in linear.parameters())


def test_previewer_and_aggregator_start_as_nothing(folder: Path) -> None:
    previewer = stage_of("previewer", folder, **before(folder, "previewer")).previewer
    assert all(not pair.second.any() and pair.first.any() for pair in previewer.factors().values())
    stage = stage_of("aggregator", folder, **before(folder, "aggregator"))
    latents = torch.randn(2, 1, 16, 8, 8)
    residuals = stage.aggregator(*latents, torch.tensor([500]), torch.randn(1, 8), torch.tensor([[64.0, 64, 0, 0, 64, 64]]))
    assert not any(residual.any() for residual in residuals)
    assert torch.equal(stage.aggregator.conv_in.weight, stage.ground.unet.conv_in.weight)


# --- what they compute, against the networks of inference called one by one


def hand_tokens(stage: Any, seen: Tensor) -> Tensor:
    """By inference's own function; gradients do not matter here."""
    return image_tokens(stage.ground.encoder, seen.permute(0, 2, 3, 1))[0].clone()


def hand_noise(stage: Any, z: Tensor, t: Tensor, texts: tuple[str, ...], tokens: Tensor, *residuals: Tensor) -> Tensor:
    """The U-Net with its DCP, called as diffusers has it."""
    unet, dcp = stage.ground.unet, stage.ground.steered.dcp
    prompts = [read_prior(Path(stage.settings.prior), torch.float32, "none").encode_prompt(text) for text in texts]
    pooled = torch.cat([prompt.pooled for prompt in prompts if prompt.pooled is not None])
    added = {"text_embeds": pooled, "time_ids": drawn_batch().sizes}
    extra: dict[str, Any] = {}
    if residuals:
        extra = {"down_block_additional_residuals": list(residuals[:-1]), "mid_block_additional_residual": residuals[-1]}
    with dcp.seeing(ImageContext(dcp.image_keys(tokens))):
        text = torch.cat([prompt.tokens for prompt in prompts])
        eps: Tensor = unet(z, t, text, added_cond_kwargs=added, **extra).sample
    return eps


def hand_jump(stage: Any, z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    a, b = (table(t).view(-1, 1, 1, 1) for table in (stage.schedule.signal, stage.schedule.noise))
    scaled = (10.0 * t).view(-1, 1, 1, 1)
    return scaled / (scaled**2 + 0.25) ** 0.5 * (z - b * eps) / a + 0.25 / (scaled**2 + 0.25) * z


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=WITHIN, atol=0)


@torch.no_grad()
def test_the_loss_of_the_dcp_is_that_of_the_noise_in_the_clean_latent(folder: Path) -> None:
    stage = ready(folder, "dcp", weighting="late", drop={"image": 0.0, "text": 0.0, "both": 0.0})
    batch = drawn_batch(("a fox", "a wall"))
    found = loss_of(stage, captions=batch.captions)
    torch.manual_seed(5)
    clean = stage.vae.encode(batch.high_quality)
    noise, t = torch.randn_like(clean), torch.randint(1000, (2,))
    a, b = (table(t).view(-1, 1, 1, 1) for table in (stage.schedule.signal, stage.schedule.noise))
    assert batch.low_quality is not None
    said = hand_noise(stage, a * clean + b * noise, t, batch.captions, hand_tokens(stage, batch.low_quality))
    errors = ((said - noise) ** 2).mean(dim=(1, 2, 3))
    close(found, ((1 - 0.5 * torch.cos(torch.pi * t / 1000)) * errors).mean())


@torch.no_grad()
def test_what_is_hidden_is_a_picture_of_zeros_and_an_empty_text(folder: Path) -> None:
    batch = drawn_batch(("a fox", "a wall"))
    rates: list[dict[str, float]] = [{}, {"image": 1.0}, {"text": 1.0}, {"both": 1.0}]
    found = [ready(folder, "dcp", drop=rate).ground.dropped(batch) for rate in rates]
    (whole, shown), (told_alone, blank), (silent, shown_alone), (nothing, neither) = found
    assert shown.any() and not blank.any() and torch.equal(shown_alone, shown) and not neither.any()
    assert torch.equal(told_alone.text, whole.text) and torch.equal(nothing.text, silent.text)
    assert torch.equal(silent.text[0], silent.text[1]) and not torch.equal(whole.text[0], silent.text[0])
    assert torch.equal(whole.size_ids, batch.sizes)


@torch.no_grad()
def test_captions_are_told_where_they_are_wanted(folder: Path) -> None:
    batch = drawn_batch(("a fox", "a wall"))
    wanted, unwanted = (stage_of("dcp", folder, captions=captions).ground for captions in (True, False))
    assert wanted.captions(batch) == ("a fox", "a wall") and unwanted.captions(batch) == ("", "")


@torch.no_grad()
def test_the_loss_of_the_previewer_compares_it_with_itself_a_step_of_the_teacher_later(folder: Path) -> None:
    stage = ready(folder, "previewer")
    batch = drawn_batch(("a fox", "a wall"))
    found = loss_of(stage, captions=batch.captions)
    torch.manual_seed(5)
    clean = stage.vae.encode(batch.high_quality)
    number = torch.randint(1, 51, (2,))
    s, t = 20 * number - 1, (20 * number - 21).clamp(min=0)
    (a, b), (a_next, b_next) = (
        tuple(table(time).view(-1, 1, 1, 1) for table in (stage.schedule.signal, stage.schedule.noise)) for time in (s, t)
    )
    z_s = a * clean + b * torch.randn_like(clean)
    guidance = (3 + 12 * torch.rand(2)).view(-1, 1, 1, 1)
    assert batch.low_quality is not None
    tokens = hand_tokens(stage, batch.low_quality)
    # The second of image_tokens() is what the encoder makes of zeros.
    blank = image_tokens(stage.ground.encoder, torch.rand(1, 64, 64, 3))[1].clone().expand(2, -1, -1)
    conditional, unconditional = (hand_noise(stage, z_s, s, texts, seen) for texts, seen in ((batch.captions, tokens), (("", ""), blank)))
    x0, eps = (
        own + guidance * (own - other)
        for own, other in (((z_s - b * conditional) / a, (z_s - b * unconditional) / a), (conditional, unconditional))
    )
    z_t = a_next * x0 + b_next * eps
    networks = nn.ModuleDict({"unet": stage.ground.unet, "dcp": stage.ground.steered.dcp})
    with LoraSwitch(networks, stage.previewer.factors(), 1 / 2).on():
        student, target = (hand_jump(stage, z, hand_noise(stage, z, at, ("", ""), tokens), at) for z, at in ((z_s, s), (z_t, t)))
    close(found, (((student - target) ** 2 + 1e-6).sqrt() - 0.001).mean())
    assert not torch.equal(student, hand_jump(stage, z_s, hand_noise(stage, z_s, s, ("", ""), tokens), s))


@torch.no_grad()
def test_the_loss_of_the_aggregator_is_that_of_the_noise_its_residuals_lead_to(folder: Path) -> None:
    stage = ready(folder, "aggregator", drop={"image": 0.0, "text": 1.0, "both": 0.0})
    batch = drawn_batch()
    found = loss_of(stage)
    torch.manual_seed(5)
    assert batch.low_quality is not None
    clean, degraded = stage.vae.encode(batch.high_quality, True), stage.vae.encode(batch.low_quality, True)
    noise, t = torch.randn_like(clean), torch.randint(1000, (2,))
    a, b = (table(t).view(-1, 1, 1, 1) for table in (stage.schedule.signal, stage.schedule.noise))
    z_t, tokens = a * clean + b * noise, hand_tokens(stage, batch.low_quality)
    networks = nn.ModuleDict({"unet": stage.ground.unet, "dcp": stage.ground.steered.dcp})
    with LoraSwitch(networks, stage.previewer.factors(), 1 / 2).on():
        preview = hand_jump(stage, z_t, hand_noise(stage, z_t, t, ("", ""), tokens), t)
    told = stage.ground.told(["", ""], batch.sizes)
    residuals = stage.aggregator(degraded, preview, t, told.pooled, told.size_ids)
    close(found, F.mse_loss(hand_noise(stage, z_t, t, ("", ""), tokens, *residuals), noise))


# --- what they export


@pytest.fixture
def installed(folder: Path, host: LocalHost) -> Iterator[Path]:
    """The exported files where the nodes look for them."""
    place = host.folders.models / "kintsugi" / "instantir"
    place.mkdir(parents=True)
    for part in PARTS:
        shutil.copy(exported(folder, part), place)
    yield folder


def test_every_stage_leaves_weights_and_a_card(folder: Path) -> None:
    for part in PARTS:
        names = sorted(path.name for path in exported(folder, part).parent.iterdir())
        assert names == [f"mini-instantir-{part}.md", f"mini-instantir-{part}.safetensors"]


def test_the_nodes_load_what_was_exported_and_restore_with_it(installed: Path) -> None:
    name = "instantir/mini-instantir-{}.safetensors".format
    prior = read_prior(installed / "prior.safetensors", torch.float32, "none")
    loaders: tuple[Callable[[str], tuple[Any]], ...] = (
        KintsugiLoadDCP().load, KintsugiLoadPreviewer().load, KintsugiLoadAggregator().load,
    )  # fmt: skip
    (dcp,), (previewer,), (aggregator,) = (load(name(part)) for load, part in zip(loaders, PARTS, strict=True))
    (context,) = KintsugiDCPEncode().perceive(dcp, torch.rand(1, 40, 56, 3))
    prompt = prior.encode_prompt("sharp")
    conditioning = [[prompt.tokens, {"pooled_output": prompt.pooled}]]
    widgets = {
        key: spec[1]["default"]
        for key, spec in KintsugiAdaResSampler.INPUT_TYPES()["required"].items()
        if len(spec) > 1 and "default" in spec[1]
    }
    parts = {"prior": prior, "lq_context": context, "previewer": previewer, "aggregator": aggregator}
    latent = {"samples": torch.randn(1, 16, 10, 14)}
    told = {"positive": conditioning, "negative": conditioning, "latent": latent}
    restored, previews = KintsugiAdaResSampler().restore(**{**widgets, **parts, **told, "steps": 3, "adares": "paper"})
    assert restored["samples"].shape == (1, 16, 10, 14) and restored["samples"].isfinite().all()
    assert previews["samples"].shape[0] == 3 and previews["samples"].isfinite().all()


@torch.no_grad()
def test_exported_networks_compute_what_the_trained_ones_do(installed: Path) -> None:
    """Two roundings to half precision lie between: at the export, and of the files that the stage of the next part read."""
    stage = ready(installed, "aggregator")
    name = "instantir/mini-instantir-{}.safetensors".format
    (dcp,), (previewer,) = KintsugiLoadDCP().load(name("dcp")), KintsugiLoadPreviewer().load(name("previewer"))
    own, read = stage.ground.steered.dcp.state_dict(), dcp.dcp.state_dict()
    assert own.keys() == read.keys() and all(torch.equal(own[name], tensor) for name, tensor in read.items())
    factors = previewer.factors(stage.ground.unet, stage.ground.steered.dcp)
    assert previewer.scale == stage.previewer.scale == 1 / 2
    assert all(torch.equal(factors[name].second, pair.second) for name, pair in stage.previewer.factors().items())
    picture = drawn_batch().high_quality
    assert torch.equal(hand_tokens(stage, picture), image_tokens(dcp.encoder, picture.permute(0, 2, 3, 1))[0])


def test_validation_samples_as_the_nodes_do(installed: Path) -> None:
    stage = ready(installed, "aggregator")
    with torch.no_grad():
        torch.manual_seed(2)
        shown = stage.output(drawn_batch())
        again = stage.output(drawn_batch())
    assert list(shown) == ["low_quality", "restored", "high_quality"]
    assert shown["restored"].shape == shown["high_quality"].shape and shown["restored"].isfinite().all()
    assert not torch.equal(shown["restored"], again["restored"])


def test_a_setting_that_there_is_not_is_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match="previewer"):
        stage_of("dcp", folder, previewer="embedded")
