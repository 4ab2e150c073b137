"""Priors are found by name and by what they hold, and read in every layout they are published in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from kintsugi.core.errors import BadValueError, WeightsError
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights.bases import base_choices, find_base, search_base
from kintsugi.core.weights.files import NetworkFile, build_network
from published_layouts import (
    PIXART_CONFIG,
    SD3_CONFIG,
    UNET_CONFIG,
    original_sd3_names,
    original_vae_names,
    random_network,
    vae_config,
    write_folder,
    write_single_file,
)
from torch import nn

SD3_VAE = vae_config(16, use_quant_conv=False, use_post_quant_conv=False)
SD3_METADATA = {"transformer": SD3_CONFIG, "vae": SD3_VAE}


def sd3() -> Any:
    return random_network("SD3Transformer2DModel", SD3_CONFIG)


def vae(config: dict[str, Any] = SD3_VAE) -> Any:
    return random_network("AutoencoderKL", config)


def checkpoint(path: Path, with_vae: bool = True, **changes: Any) -> Path:
    """SD3 in one file, as it was released."""
    tensors = {f"model.diffusion_model.{name}": tensor for name, tensor in original_sd3_names(sd3().state_dict()).items()}
    if with_vae:
        tensors |= {f"first_stage_model.{name}": tensor for name, tensor in original_vae_names(vae().state_dict(), 2).items()}
    tensors |= {"text_encoders.clip_l.transformer.weight": torch.zeros(2)}
    kept = {name: changes.get(name, tensor) for name, tensor in tensors.items()}
    return write_single_file(path, {name: tensor for name, tensor in kept.items() if tensor is not None}, SD3_METADATA)


def require_same(found: NetworkFile, network: nn.Module) -> None:
    """The file, built strictly, is that network tensor by tensor."""
    rebuilt = build_network(lambda: type(network).from_config(found.config), found.tensors, found.where)  # type: ignore[attr-defined]
    for name, tensor in network.state_dict().items():
        assert torch.equal(rebuilt.state_dict()[name], tensor), name


def test_a_single_file_of_the_release_is_read_in_diffusers_names(host: LocalHost) -> None:
    checkpoint(host.folders.models / "checkpoints" / "sd3_medium.safetensors")
    base = find_base("sd3")
    assert (base.family, base.name, base.prompt_encoder()) == ("sd3", "checkpoints/sd3_medium.safetensors", None)
    require_same(base.denoiser(), sd3())
    require_same(base.vae(), vae())


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_transformer_alone_takes_its_vae_from_the_vae_folder(host: LocalHost, prefix: str) -> None:
    named = {f"{prefix}{name}": tensor for name, tensor in original_sd3_names(sd3().state_dict()).items()}
    write_single_file(host.folders.models / "diffusion_models" / "mine.safetensors", named, SD3_METADATA)
    write_single_file(host.folders.models / "vae" / "sd3_vae.safetensors", vae().state_dict(), {"kind": "vae", "vae": SD3_VAE})
    base = find_base("sd3")
    assert base.name == "diffusion_models/mine.safetensors"
    require_same(base.denoiser(), sd3())
    require_same(base.vae(), vae())


def test_a_diffusers_folder_is_read_whole_or_in_shards(host: LocalHost) -> None:
    folder = write_folder(host.folders.models / "diffusers" / "stable-diffusion-3-medium-diffusers", {"vae": vae()})
    sd3().save_pretrained(folder / "transformer", max_shard_size="20KB")
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 1
    base = find_base("sd3")
    assert base_choices() == ["diffusers/stable-diffusion-3-medium-diffusers"]
    require_same(base.denoiser(), sd3())
    require_same(base.vae(), vae())


def test_other_families_are_told_apart_by_their_configuration(host: LocalHost) -> None:
    models = host.folders.models
    pixart, unet = random_network("PixArtTransformer2DModel", PIXART_CONFIG), random_network("UNet2DConditionModel", UNET_CONFIG)
    write_folder(models / "diffusers" / "some" / "pixart", {"transformer": pixart, "vae": vae(vae_config(4))})
    write_folder(models / "checkpoints" / "restorer", {"unet": unet, "vae": vae(vae_config(16))})
    assert find_base("pixart-alpha").name == "diffusers/some/pixart"
    assert find_base("sd21-vae16").name == "checkpoints/restorer"
    require_same(find_base("pixart-alpha").denoiser(), pixart)
    require_same(find_base("sd21-vae16").denoiser(), unet)


def test_the_null_caption_that_pixart_was_published_with_is_left_out(host: LocalHost) -> None:
    pixart, models = random_network("PixArtTransformer2DModel", PIXART_CONFIG), host.folders.models
    tensors = {**pixart.state_dict(), "caption_projection.y_embedding": torch.zeros(120, 12)}
    write_single_file(models / "diffusion_models" / "pixart.safetensors", tensors, {"transformer": PIXART_CONFIG})
    require_same(find_base("pixart-alpha").denoiser(), pixart)
    folder = write_folder(models / "diffusers" / "PixArt-XL-2-512x512", {"transformer": pixart})
    write_single_file(folder / "transformer" / "diffusion_pytorch_model.safetensors", tensors)
    assert find_base("pixart-alpha").name == "diffusers/PixArt-XL-2-512x512"
    require_same(find_base("pixart-alpha").denoiser(), pixart)


def test_pixart_is_understood_as_it_was_published_under_another_class(host: LocalHost) -> None:
    pixart = random_network("PixArtTransformer2DModel", PIXART_CONFIG)
    folder = write_folder(host.folders.models / "diffusers" / "mine", {"transformer": pixart})
    path = folder / "transformer" / "config.json"
    old = {"_class_name": "Transformer2DModel", "num_vector_embeds": None, "use_linear_projection": False, "double_self_attention": False}
    path.write_text(json.dumps({**json.loads(path.read_text()), **old}))
    require_same(find_base("pixart-alpha").denoiser(), pixart)
    assert not old.keys() & find_base("pixart-alpha").denoiser().config.keys()


def test_a_vae_alone_is_a_base_without_denoiser(host: LocalHost) -> None:
    old = vae(vae_config(4, shift_factor=None))
    old.save_pretrained(host.folders.models / "vae" / "sd-vae-ft-ema")
    config = host.folders.models / "vae" / "sd-vae-ft-ema" / "config.json"
    config.write_text(json.dumps({name: value for name, value in json.loads(config.read_text()).items() if name != "scaling_factor"}))
    base = find_base("pixart-alpha")
    assert base.name == "vae/sd-vae-ft-ema"
    assert base.vae().config["scaling_factor"] == 0.18215
    with pytest.raises(WeightsError, match=r"vae/sd-vae-ft-ema: has no PixArtTransformer2DModel"):
        base.denoiser()


def test_the_attention_names_of_old_diffusers_are_understood(host: LocalHost) -> None:
    folder = host.folders.models / "vae" / "sd-vae-ft-ema"
    network = vae(vae_config(4))
    network.save_pretrained(folder)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = network.state_dict()
    for new, name in old.items():
        tensors = {key.replace(f".{new}.", f".{name}."): tensor for key, tensor in tensors.items()}
    write_single_file(folder / "diffusion_pytorch_model.safetensors", tensors)
    require_same(find_base("pixart-alpha").vae(), network)


def test_latents_of_an_unknown_scaling_are_refused(host: LocalHost) -> None:
    folder = host.folders.models / "kintsugi" / "gendr" / "vae-kl-f8-d16"
    vae(vae_config(16)).save_pretrained(folder)
    assert find_base("sd21-vae16").vae().config["scaling_factor"] == 0.5
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({name: value for name, value in config.items() if name != "scaling_factor"}))
    with pytest.raises(WeightsError, match=r"vae-kl-f8-d16: its configuration has no scaling_factor"):
        find_base("sd21-vae16").vae()


def test_nothing_found_names_what_was_searched_and_where_to_put_it(host: LocalHost) -> None:
    assert search_base("sd3") is None
    with pytest.raises(WeightsError, match=r"found nothing of the prior sd3, searched .*checkpoints.*models fetch sd3-medium"):
        find_base("sd3")
    with pytest.raises(BadValueError, match=r"no prior family 'sd4'.*sd3, sd21-vae16, pixart-alpha"):
        find_base("sd4")


def test_two_unusual_places_of_a_family_ask_for_a_name(host: LocalHost) -> None:
    for name in ("one", "two"):
        checkpoint(host.folders.models / "checkpoints" / f"{name}.safetensors")
    with pytest.raises(
        WeightsError, match=r"several places hold the prior sd3: checkpoints/one\.safetensors, checkpoints/two\.safetensors"
    ):
        find_base("sd3")
    require_same(find_base("sd3", "checkpoints/two.safetensors").denoiser(), sd3())


def test_a_damaged_file_beside_it_is_passed_over_and_said(host: LocalHost, caplog: pytest.LogCaptureFixture) -> None:
    folder = host.folders.models / "checkpoints"
    checkpoint(folder / "good.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "good.safetensors").read_bytes()[:5000])
    assert find_base("sd3").name == "checkpoints/good.safetensors"
    assert "Passed over while looking for sd3" in caplog.text


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"model.diffusion_model.joint_blocks.1.x_block.mlp.fc1.bias": None}, r"joint_blocks\.1\.x_block\.mlp\.fc1\.bias is missing"),
        (
            {"model.diffusion_model.joint_blocks.1.x_block.mlp.fc1.bias": torch.zeros(3)},
            r"ff\.net\.0\.proj\.bias is \[3\], expected \[64\]",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(host: LocalHost, changes: dict[str, Any], fault: str) -> None:
    checkpoint(host.folders.models / "checkpoints" / "sd3_medium.safetensors", **changes)
    with pytest.raises(WeightsError, match=fault):
        require_same(find_base("sd3").denoiser(), sd3())


def test_unknown_tensors_are_refused_by_name(host: LocalHost) -> None:
    models = host.folders.models
    named = {**original_sd3_names(sd3().state_dict()), "joint_blocks.0.extra": torch.zeros(1)}
    write_single_file(models / "diffusion_models" / "more.safetensors", named, SD3_METADATA)
    with pytest.raises(WeightsError, match=r"joint_blocks\.0\.extra is unknown"):
        require_same(find_base("sd3").denoiser(), sd3())
    named = {**original_vae_names(vae().state_dict(), 2), "decoder.extra": torch.zeros(1)}
    write_single_file(models / "vae" / "sd3_vae.safetensors", named, {"vae": SD3_VAE})
    with pytest.raises(WeightsError, match=r"decoder\.extra is unknown"):
        require_same(find_base("sd3").vae(), vae())


def test_the_wrong_family_a_pickle_and_no_file_are_refused(host: LocalHost) -> None:
    models = host.folders.models
    checkpoint(models / "checkpoints" / "sd3_medium.safetensors")
    (models / "checkpoints" / "old.ckpt").write_bytes(b"\x80\x02")
    with pytest.raises(WeightsError, match=r"sd3_medium\.safetensors: holds no PixArtTransformer2DModel of pixart-alpha"):
        find_base("pixart-alpha", "checkpoints/sd3_medium.safetensors").denoiser()
    with pytest.raises(WeightsError, match=r"kintsugi convert old\.ckpt"):
        find_base("sd3", "checkpoints/old.ckpt")
    with pytest.raises(WeightsError, match=r"no weights named 'none\.safetensors'"):
        find_base("sd3", "checkpoints/none.safetensors")
    with pytest.raises(WeightsError, match=r"no prior is named 'diffusers/none'.*checkpoints/sd3_medium\.safetensors"):
        find_base("sd3", "diffusers/none")


def test_a_folder_with_a_pickle_alone_tells_the_way_out(host: LocalHost) -> None:
    folder = write_folder(host.folders.models / "diffusers" / "stable-diffusion-3-medium", {"transformer": sd3(), "vae": vae()})
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(WeightsError, match=r"kintsugi convert .*diffusion_pytorch_model\.bin .*diffusion_pytorch_model\.safetensors"):
        find_base("sd3").denoiser()


def test_a_folder_of_another_family_is_refused(host: LocalHost) -> None:
    write_folder(host.folders.models / "diffusers" / "stable-diffusion-3-medium", {"transformer": sd3(), "vae": vae()})
    with pytest.raises(WeightsError, match=r"holds no PixArtTransformer2DModel of pixart-alpha"):
        find_base("pixart-alpha", "diffusers/stable-diffusion-3-medium").denoiser()
    with pytest.raises(WeightsError, match=r"has no unet folder with a config\.json"):
        find_base("sd21-vae16", "diffusers/stable-diffusion-3-medium").denoiser()
