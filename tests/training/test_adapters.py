"""Adapters of our own against peft's on tiny networks, shared between several, and under gradient checkpointing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kintsugi.core.errors import BadValueError
from kintsugi.training.adapters import Adapted, checkpoint_gradients, suffix_targets
from torch import Tensor, nn

SUFFIXES = ["to_q", "to_out.0", "proj", "conv1", "conv_in"]
RANK = 3


def sd3() -> nn.Module:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=4, num_attention_heads=2,
        joint_attention_dim=8, caption_projection_dim=8, pooled_projection_dim=8, out_channels=4, pos_embed_max_size=8,
    )  # fmt: skip


def unet() -> nn.Module:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8, attention_head_dim=4,
    )  # fmt: skip


def call(network: nn.Module) -> Tensor:
    named: dict[str, Any] = {"encoder_hidden_states": torch.ones(2, 3, 8), "timestep": torch.tensor([5.0, 900.0])}
    if "SD3" in type(network.network if isinstance(network, Adapted) else network).__name__:
        named["pooled_projections"] = torch.ones(2, 8)
    return network(torch.linspace(-1, 1, 2 * 4 * 8 * 8).view(2, 4, 8, 8), **named).sample


def adapted(network: nn.Module, seed: int = 0) -> Adapted:
    """With factors that are not zero."""
    torch.manual_seed(seed)
    adapter = Adapted(network, suffix_targets(network, SUFFIXES), RANK, scale=0.5)
    for parameter in adapter.second:
        nn.init.normal_(parameter, std=0.3)
    return adapter


@pytest.fixture(params=[sd3, unet])
def network(request: pytest.FixtureRequest) -> nn.Module:
    build: Callable[[], nn.Module] = request.param
    torch.manual_seed(1)
    network = build().requires_grad_(False).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def gradients(adapter: Adapted) -> dict[str, tuple[Tensor, Tensor]]:
    adapter.zero_grad()
    call(adapter).square().sum().backward()
    return {name: (first.grad.clone(), second.grad.clone()) for name, (first, second) in adapter.factors().items()}


def test_output_and_gradients_are_those_of_peft(network: nn.Module) -> None:
    from peft import LoraConfig

    adapter, other = adapted(network), copy.deepcopy(network)
    other.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK * 0.5, target_modules=SUFFIXES))
    layers = {name: module for name, module in other.named_modules() if hasattr(module, "lora_A")}
    assert list(layers) == list(adapter.factors())
    for name, pair in adapter.factors().items():
        layers[name].lora_A["default"].weight.data = pair.first.detach().clone()
        layers[name].lora_B["default"].weight.data = pair.second.detach().clone()
    expected = call(other)
    expected.square().sum().backward()
    torch.testing.assert_close(call(adapter), expected, rtol=1e-6, atol=1e-7)
    for name, (first, second) in gradients(adapter).items():
        torch.testing.assert_close(first, layers[name].lora_A["default"].weight.grad, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(second, layers[name].lora_B["default"].weight.grad, rtol=1e-5, atol=1e-6)


def test_a_new_adapter_changes_nothing_and_its_first_factors_are_of_deviation_one_by_rank(network: nn.Module) -> None:
    adapter = Adapted(network, suffix_targets(network, SUFFIXES), rank=16)
    assert torch.equal(call(adapter), call(network))
    values = torch.cat([pair.first.detach().flatten() for pair in adapter.factors().values()])
    assert float(values.std()) == pytest.approx(1 / 16, rel=0.05)


def test_two_adapters_on_one_network_do_not_see_each_other(network: nn.Module) -> None:
    plain = call(network)
    one, two = adapted(network, 1), adapted(network, 2)
    alone = call(one)
    assert not torch.equal(call(two), alone)
    assert torch.equal(call(one), alone)
    assert torch.equal(call(network), plain)
    call(one).sum().backward()
    assert all(parameter.grad is None for parameter in (*two.parameters(), *network.parameters()))


def test_the_network_is_neither_counted_nor_saved_nor_put_in_training_mode(network: nn.Module) -> None:
    adapter = adapted(network).train()
    assert {name.split(".")[0] for name in adapter.state_dict()} == {"first", "second"}
    assert sum(p.numel() for p in adapter.parameters()) == sum(t.numel() for pair in adapter.factors().values() for t in pair)
    assert not network.training


def test_checkpointed_gradients_are_the_plain_ones(network: nn.Module) -> None:
    one, two = adapted(network, 1), adapted(network, 2)
    plain = gradients(one)
    checkpoint_gradients(network)
    for name, pair in gradients(one).items():
        for found, expected in zip(pair, plain[name], strict=True):
            assert torch.equal(found, expected)
    # Of a second adapter that ran between forward and backward, the recomputation sees nothing.
    one.zero_grad()
    output = call(one).square().sum()
    call(two).sum().backward()
    output.backward()
    for name, pair in one.factors().items():
        assert torch.equal(pair.first.grad, plain[name][0])


def test_a_graph_that_is_kept_is_computed_again_by_each_backward_pass(network: nn.Module) -> None:
    adapter = adapted(network)
    plain = gradients(adapter)
    checkpoint_gradients(network)
    output = call(adapter).square().sum()
    factors = [tensor for pair in adapter.factors().values() for tensor in pair]
    for keep in (True, False):
        found = torch.autograd.grad(output, factors, retain_graph=keep)
        assert all(torch.equal(*pair) for pair in zip(found, (t for pair in plain.values() for t in pair), strict=True))


def test_merged_weights_give_the_adapted_output(network: nn.Module) -> None:
    adapter, other = adapted(network), copy.deepcopy(network)
    other.load_state_dict(adapter.merged())
    torch.testing.assert_close(call(other), call(adapter), rtol=1e-5, atol=1e-6)


def test_the_network_may_lie_in_half_precision_under_autocast(network: nn.Module) -> None:
    expected = call(adapted(network))
    network.to(torch.bfloat16)
    adapter = adapted(network)
    with torch.autocast("cpu", torch.bfloat16):
        output = call(adapter)
        output.float().square().sum().backward()
    assert all(parameter.dtype == parameter.grad.dtype == torch.float32 for parameter in adapter.parameters())
    torch.testing.assert_close(output.float(), expected, rtol=0.1, atol=0.1 * float(expected.detach().abs().max()))


def test_a_suffix_must_match_whole_names_and_something() -> None:
    network = nn.ModuleDict({"to_q": nn.Linear(2, 2), "into_q": nn.Linear(2, 2), "norm": nn.LayerNorm(2)})
    assert suffix_targets(network, ["to_q", "norm"]) == ["to_q"]
    with pytest.raises(BadValueError, match="to_z"):
        suffix_targets(network, ["to_z"])
