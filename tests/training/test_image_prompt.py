"""The IP-Adapter of the real score network: its equation, its published names, and that it speaks to that network alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kintsugi.core.errors import WeightsError
from kintsugi.core.models.mini import build_pixart
from kintsugi.training.image_prompt import ImagePromptSettings, read_image_prompt
from kintsugi.training.stages.instarevive import InstaReviveSettings, InstaReviveStage
from safetensors.torch import save_file
from tiny_pixart import NETWORK, batch_of, losses, write_prior
from torch import Tensor, nn
from torch.nn import functional as F

CLIP = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8, "image_size": 32,
    "projection_dim": 10,
}  # fmt: skip
TOKENS, WIDTH = 3, 16


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ImagePromptSettings:
    """A tiny CLIP and an adapter with the published names."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(4)
    CLIPVisionModelWithProjection(CLIPVisionConfig(**CLIP)).save_pretrained(folder / "image_encoder")
    tensors = {
        "image_proj.proj.weight": torch.randn(TOKENS * WIDTH, 10), "image_proj.proj.bias": torch.randn(TOKENS * WIDTH),
        "image_proj.norm.weight": torch.rand(WIDTH), "image_proj.norm.bias": torch.randn(WIDTH),
    }  # fmt: skip
    for layer in (1, 3):
        tensors |= {f"ip_adapter.{layer}.to_{part}_ip.weight": torch.randn(WIDTH, WIDTH) for part in "kv"}
    save_file(tensors, folder / "adapter.safetensors")
    return ImagePromptSettings(adapter=folder / "adapter.safetensors", encoder=folder / "image_encoder", tokens=TOKENS, scale=0.7)


def call(network: nn.Module, latent: Tensor, mask: Tensor | None) -> Tensor:
    torch.manual_seed(6)
    prompt, rows = torch.randn(len(latent), 5, NETWORK["caption_channels"]), len(latent)
    found: Tensor = network(latent, prompt, torch.full((rows,), 300), encoder_attention_mask=mask, return_dict=False)[0]
    return found


@pytest.mark.parametrize("mask", [None, torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]]), torch.tensor([[[1.0, 1.0, 1.0, 0.0, 0.0]]])])
def test_attention_to_the_picture_is_added_to_that_to_the_text(settings: ImagePromptSettings, mask: Tensor | None) -> None:
    torch.manual_seed(5)
    network = build_pixart(NETWORK).eval()
    prompt, latent = read_image_prompt(network, settings), torch.randn(2, 16, 8, 8)
    mask = None if mask is None else mask.expand(2, *mask.shape[1:])
    tokens = prompt.tokens(torch.rand(1, 3, 40, 40))
    assert tokens.shape == (2, TOKENS, WIDTH)
    seen: dict[str, Tensor] = {}
    attention = network.transformer_blocks[0].attn2
    attention.to_q.register_forward_hook(lambda _module, _inputs, output: seen.update(query=output))
    attention.to_out[0].register_forward_hook(lambda _module, inputs, _output: seen.update(entering=inputs[0]))
    with torch.no_grad():
        plain = call(network, latent, mask)
        without = seen["entering"]
        with prompt.on(tokens):
            shown = call(network, latent, mask)
        layer = prompt.ip_adapter["1"]
        query, key, value = (
            part.unflatten(2, (2, -1)).transpose(1, 2) for part in (seen["query"], layer.to_k_ip(tokens), layer.to_v_ip(tokens))
        )
        told = F.softmax(query @ key.transpose(2, 3) / 8**0.5, dim=-1) @ value
        expected = without + 0.7 * told.transpose(1, 2).flatten(2)
        assert (seen["entering"] - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert not torch.allclose(shown, plain)
        assert torch.equal(call(network, latent, mask), plain)


def test_only_the_real_score_network_of_a_stage_sees_the_source(settings: ImagePromptSettings, tmp_path: Path) -> None:
    prior = write_prior(tmp_path / "tiny.safetensors")
    torch.manual_seed(0)
    stage = InstaReviveStage(InstaReviveSettings(base=str(prior), guidance=2.0, identity=settings))
    batch, x_t, t = batch_of(), torch.randn(2, 16, 8, 8), torch.tensor([300, 600])
    assert stage.identity is not None
    other = batch_of()
    other = type(other)(**{**vars(other), "low_quality": 1 - batch.degraded})
    with torch.no_grad():
        found = stage._real(x_t, t, batch)
        assert not torch.allclose(found, stage._real(x_t, t, other))
        null, _ = stage.identity.tokens(batch.degraded).split(2)
        assert torch.equal(null[0], null[1])
        assert torch.equal(stage.fake(x_t, t, stage._prompt(batch)), stage.real(x_t, t, stage._prompt(batch)))
    losses(stage, "generator", {"score"})["score"].backward()
    assert all(parameter.grad is None for parameter in stage.identity.parameters())
    assert any(parameter.grad is not None for parameter in stage.generator.parameters())


def test_an_adapter_of_another_network_and_a_folder_without_encoder_are_explained(settings: ImagePromptSettings, tmp_path: Path) -> None:
    deeper = build_pixart({**NETWORK, "num_layers": 3})
    with pytest.raises(WeightsError, match=r"ip_adapter\.5\.to_k_ip\.weight is missing"):
        read_image_prompt(deeper, settings)
    with pytest.raises(WeightsError, match="CLIP image encoder"):
        read_image_prompt(deeper, settings.model_copy(update={"encoder": tmp_path}))
