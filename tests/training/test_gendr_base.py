"""GenDR's training at its full size: counts, and the whole way from Stable Diffusion 2.1 to a restorer at tiny widths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from kintsugi.core.errors import WeightsError
from kintsugi.core.methods.one_step import Tiling, restore
from kintsugi.core.models.mini import build_unet
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights.gendr import FAMILY
from kintsugi.core.weights.generators import load_generator
from kintsugi.training.adapters import Adapted
from kintsugi.training.bases import base_parts
from kintsugi.training.data import Batch
from kintsugi.training.features import features_of
from kintsugi.training.recipe import load_recipe
from kintsugi.training.run import train
from kintsugi.training.stages import build_stage
from kintsugi.training.widened_unet import widen
from tiny_text_encoders import write_sd21_encoder
from torch import nn

UNET: dict[str, Any] = {
    "sample_size": 8, "in_channels": 4, "out_channels": 4, "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
    "cross_attention_dim": 12, "attention_head_dim": [2, 4], "use_linear_projection": True,
}  # fmt: skip
VAE: dict[str, Any] = {
    "latent_channels": 16, "block_out_channels": [8, 8, 8], "norm_num_groups": 4, "layers_per_block": 1, "scaling_factor": 0.5,
    "down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3,
}  # fmt: skip
ONE_STEP = {
    "steps": "1", "batch": "2", "accumulate": "1", "checkpoint_every": "1", "validate_every": "1", "precision": "'no'",
    "frozen_precision": "'no'", "data.crop": "32", "data.resize": "null", "data.workers": "0", "settings.projector_width": "16",
}  # fmt: skip


def test_networks_have_the_published_sizes() -> None:
    with torch.device("meta"):
        distilled: Any = build_stage(load_recipe("gendr"))
        base = build_stage(load_recipe("gendr-base"))
    assert count(distilled.generator.unet) == 865_979_856 == count(base.networks["base"].unet)  # type: ignore[arg-type]
    assert count(distilled.fake) == count(distilled.real) == 61_417_472
    assert len(distilled.fake.factors()) == 252
    assert distilled.heads.blocks == ("down_blocks.2", "mid_block")
    assert {name: tuple(tensor.shape) for name, tensor in distilled.generator.projector.named_parameters() if "weight" in name} == {
        "0.weight": (2048, 320), "2.weight": (2048, 2048), "4.weight": (768, 2048),
    }  # fmt: skip


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_a_widened_unet_gives_for_a_repeated_latent_what_it_gave_repeated() -> None:
    torch.manual_seed(0)
    narrow: Any = build_unet(UNET)
    wide: Any = build_unet({**UNET, "in_channels": 16, "out_channels": 16})
    wide.load_state_dict(widen(narrow.state_dict(), 16))
    latent, prompt = torch.randn(1, 4, 8, 8), torch.randn(1, 3, 12)
    expected = narrow(latent, 500, prompt).sample.repeat(1, 4, 1, 1)
    torch.testing.assert_close(wide(latent.repeat(1, 4, 1, 1), 500, prompt).sample, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def published(host: LocalHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What a user puts into the models folder: Stable Diffusion 2.1, the VAE and DINOv2."""
    from diffusers import AutoencoderKL
    from transformers import Dinov2Config, Dinov2Model

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    models = host.folders.models
    folder = models / "diffusers" / "stable-diffusion-2-1-base"
    write_sd21_encoder(folder)
    build_unet(UNET).save_pretrained(folder / "unet")
    tell_prediction(folder, "epsilon")
    AutoencoderKL.from_config(VAE).save_pretrained(models / "kintsugi" / "gendr" / "vae-kl-f8-d16")
    teacher = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=2, patch_size=14, image_size=56)
    Dinov2Model(teacher).save_pretrained(models / "clip_vision" / "dinov2-base")
    return folder


def tell_prediction(folder: Path, kind: str) -> None:
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": kind}))


def clean() -> Batch:
    torch.manual_seed(1)
    return Batch(("a", "b"), torch.rand(2, 3, 32, 32), None, ("a cat", "a dog"), torch.zeros(2, 6))


def test_from_stable_diffusion_to_a_restorer(published: Path, host: LocalHost, drawn_pictures: Path, tmp_path: Path) -> None:
    pictures = {"data.folder": str(drawn_pictures)}
    exported = train("gendr-base", tmp_path / "base", {**ONE_STEP, **pictures}, cpu=True)[0]
    checkpoints = host.folders.models / "checkpoints"
    checkpoints.mkdir()
    exported.rename(checkpoints / "sd21-vae16.safetensors")
    base = base_parts(FAMILY, "auto")
    assert base.config["in_channels"] == 16 and base.prompts is not None and base.prompts("a photo").tokens.shape == (1, 77, 12)
    small = {"settings.lora_rank": "2", "settings.head_width": "8", "settings.head_groups": "4"}
    data = {"data.mix": "[]", "data.source": "folder", **pictures}
    train("gendr", tmp_path / "student", {**ONE_STEP, **small, **data}, cpu=True)
    for path in (tmp_path / "student" / "export").glob("*.safetensors"):
        path.rename(host.folders.models / "kintsugi" / "gendr" / path.name)
    generator = load_generator("gendr", "auto", "fp32")
    assert generator.name == "gendr (generator)"
    assert restore(generator, torch.rand(1, 20, 24, 3), 1.0, 0, Tiling()).isfinite().all()


def test_captions_are_told_but_for_those_left_out(published: Path) -> None:
    stage: Any = build_stage(load_recipe("gendr-base", {**ONE_STEP, "settings.dropped": "0"}))
    assert torch.equal(stage._told(clean()), stage.prompts.batch(["a cat", "a dog"]).tokens)
    stage = build_stage(load_recipe("gendr-base", {**ONE_STEP, "settings.dropped": "1"}))
    assert torch.equal(stage._told(clean()), stage.prompts.batch(["", ""]).tokens)


def test_a_base_that_tells_v_is_held_to_the_noise_that_it_implies(published: Path) -> None:
    tell_prediction(published, "v_prediction")
    stage: Any = build_stage(load_recipe("gendr-base", ONE_STEP))

    def exact_v(z_t: torch.Tensor, t: torch.Tensor, prompt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        signal, noise = (values.view(-1, 1, 1, 1) for values in (stage.schedule.signal(t), stage.schedule.noise(t)))
        return (signal * z_t - stage.vae.encode(clean().high_quality)) / noise, prompt

    torch.manual_seed(0)
    assert float(stage.losses("base", exact_v, clean(), frozenset({"denoising"}), {})["denoising"]) < 1e-5


def test_a_base_of_another_prediction_is_refused(published: Path) -> None:
    tell_prediction(published, "sample")
    with pytest.raises(WeightsError, match=r"predicts 'sample', expected epsilon or v_prediction"):
        build_stage(load_recipe("gendr-base", ONE_STEP))


def test_a_base_that_is_not_there_is_named_with_those_that_are(published: Path) -> None:
    with pytest.raises(WeightsError, match=r"no folder 'diffusers/sd21'.*Found: diffusers/stable-diffusion-2-1-base"):
        build_stage(load_recipe("gendr-base", {**ONE_STEP, "settings.start": "diffusers/sd21"}))


def test_features_are_picked_up_under_an_adapter_as_under_the_plain_network() -> None:
    unet: Any = build_unet(UNET).requires_grad_(False)
    adapted = Adapted(unet, ["down_blocks.0.resnets.0.conv1", "mid_block.resnets.0.conv2"], 2)
    inputs = torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 3, 12)
    with features_of(unet, ["down_blocks.0", "mid_block"]) as found:
        unet(*inputs)
        plain = dict(found)
        adapted(*inputs)
    assert list(plain) == ["down_blocks.0", "mid_block"] and plain["down_blocks.0"].shape == (1, 8, 4, 4)
    assert all(torch.equal(found[name], tensor) and found[name] is not tensor for name, tensor in plain.items())
    with torch.no_grad():
        adapted.second[0].fill_(1.0)
    with features_of(unet, ["down_blocks.0"]) as found:
        adapted(*inputs)
    assert found["down_blocks.0"].requires_grad and not torch.equal(found["down_blocks.0"], plain["down_blocks.0"])
    found.clear()
    unet(*inputs)
    assert not found
