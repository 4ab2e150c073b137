"""FLUX.1 in GGUF files: quantised layers stay so, and compute what their numbers say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from flux_releases import FLUX_CONFIG, flux, original_flux_names, write_flux_vae
from gguf import GGMLQuantizationType as Kind
from kintsugi.core.errors import BadValueError, MissingPackageError, WeightsError
from kintsugi.core.methods.fluxir import Options, sample
from kintsugi.core.models.controlled_flux import controlled
from kintsugi.core.models.flux_adapter import FluxAdapter
from kintsugi.core.models.offload import Offload
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights.bases import base_choices, find_base
from kintsugi.core.weights.flux_names import flux_names
from kintsugi.core.weights.priors import load_prior
from kintsugi.nodes.one_step import KintsugiLoadGenerator
from torch import Tensor

# Numbers are quantised in blocks of 32, or of 256.
NARROW: dict[str, Any] = {"attention_head_dim": 16, "axes_dims_rope": [4, 4, 8], "joint_attention_dim": 64, "pooled_projection_dim": 32}
WIDE: dict[str, Any] = {
    "attention_head_dim": 128, "axes_dims_rope": [16, 56, 56], "joint_attention_dim": 256, "num_layers": 1, "num_single_layers": 1,
    "pooled_projection_dim": 256,
}  # fmt: skip
NAME = "diffusion_models/flux1-dev-Q8_0.gguf"
LAYER = "double_blocks.0.img_attn.qkv.weight"


def tensors_of(config: dict[str, Any]) -> dict[str, Tensor]:
    return {name: tensor / 8 for name, tensor in original_flux_names(flux(**config).state_dict()).items()}


def write_gguf(path: Path, tensors: dict[str, Tensor], kind: Kind, config: dict[str, Any]) -> dict[str, Tensor]:
    """Matrices quantised in that way, the rest in single precision, as is usual; what gguf itself makes of them again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer, back = gguf.GGUFWriter(path, "flux"), {}
    writer.add_string("kintsugi", json.dumps({"transformer": {**FLUX_CONFIG, **config}}))
    for name, tensor in tensors.items():
        quantised = tensor.ndim > 1 and tensor.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0
        data = _quantised(tensor.numpy(), kind) if quantised else tensor.numpy()
        writer.add_tensor(name, data, raw_dtype=kind if quantised else None)
        back[name] = torch.from_numpy(gguf.quants.dequantize(data, kind)) if quantised else tensor
    finish(writer)
    return back


def finish(writer: gguf.GGUFWriter) -> None:
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()


def _quantised(numbers: Any, kind: Kind) -> Any:
    """Drawn bytes where gguf does not quantise itself: two scales in half precision, then what they multiply."""
    if kind != Kind.Q4_K:
        return gguf.quants.quantize(numbers, kind)
    size, length = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.random.default_rng(0).integers(0, 256, (numbers.size // size, length), dtype=np.uint8)
    blocks[:, :4] = np.array([1e-4, 1e-3], dtype=np.float16).view(np.uint8)
    return blocks.reshape(numbers.shape[0], -1)


def velocity(network: Any, dtype: torch.dtype) -> Tensor:
    generator, config = torch.Generator().manual_seed(0), network.config
    with torch.inference_mode():
        result: Tensor = network(
            hidden_states=torch.randn(1, 6, 64, generator=generator).to(dtype),
            encoder_hidden_states=torch.randn(1, 4, config.joint_attention_dim, generator=generator).to(dtype),
            pooled_projections=torch.randn(1, config.pooled_projection_dim, generator=generator).to(dtype),
            timestep=torch.tensor([0.5]),
            guidance=torch.tensor([4.0]),
            img_ids=torch.cartesian_prod(torch.zeros(1), torch.arange(2.0), torch.arange(3.0)),
            txt_ids=torch.zeros(4, 3),
        ).sample
    return result


def denoiser(host: LocalHost, name: str = NAME, dtype: str = "fp32", offload: Offload = "none") -> Any:
    write_flux_vae(host.folders.models / "vae" / "ae.safetensors")
    prior = load_prior("flux", name, dtype, offload)
    assert prior.denoiser is not None
    return prior.denoiser()


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_0, Kind.Q5_1, Kind.BF16, Kind.F16, Kind.Q4_K])
def test_a_quantised_network_computes_with_the_numbers_that_gguf_reads(host: LocalHost, kind: Kind, dtype: str) -> None:
    config = WIDE if kind == Kind.Q4_K else NARROW
    numbers = write_gguf(host.folders.models / NAME, tensors_of(config), kind, config)
    network, expected = denoiser(host, NAME, dtype), flux(**config)
    expected.load_state_dict(flux_names(numbers))
    layer = network.transformer_blocks[0].attn.to_q
    if kind != Kind.F16:
        assert type(layer).__name__ == "GGUFLinear" and layer.weight.dtype == torch.uint8
    computed = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    found, exact = velocity(network, computed), velocity(expected.to(computed), computed)
    # Scales in half precision are multiplied in half precision here.
    assert found.dtype == computed and torch.allclose(
        found, exact, rtol=0, atol=(0.01 if dtype == "fp32" else 0.1) * float(exact.abs().max())
    )


def test_its_weights_take_the_memory_of_the_file(host: LocalHost) -> None:
    write_gguf(host.folders.models / NAME, tensors_of(NARROW), Kind.Q4_0, NARROW)
    blocks = denoiser(host, dtype="bf16").transformer_blocks
    sizes = [(layer.weight.nbytes, layer.in_features * layer.out_features) for layer in blocks.modules() if hasattr(layer, "in_features")]
    assert all(stored / count == 18 / 32 for stored, count in sizes)


@pytest.mark.parametrize("offload", ["model", "group"])
def test_quantised_weights_may_wait_in_main_memory(host: LocalHost, offload: Offload) -> None:
    write_gguf(host.folders.models / NAME, tensors_of(NARROW), Kind.Q8_0, NARROW)
    exact, found = velocity(denoiser(host), torch.float32), velocity(denoiser(host, offload=offload), torch.float32)
    assert torch.equal(found, exact)


def test_an_adapter_steers_a_quantised_flux_but_cannot_begin_as_its_copy(host: LocalHost) -> None:
    numbers = write_gguf(host.folders.models / NAME, tensors_of(NARROW), Kind.Q8_0, NARROW)
    network, whole = denoiser(host), flux(**NARROW)
    whole.load_state_dict(flux_names(numbers))
    adapter = FluxAdapter.from_transformer(whole, text_tokens=4, rank=8).eval()
    for layer in adapter.se_z:
        torch.nn.init.normal_(layer.excite.weight, generator=torch.Generator().manual_seed(1))
    prompt = PromptEmbedding(torch.randn(1, 4, 64), torch.randn(1, 32))
    z, degraded = torch.randn(2, 1, 16, 4, 4)
    results = []
    for steered in (network, whole):
        with controlled(steered, adapter) as controls:
            (result,) = sample(controls, z, degraded, prompt, torch.tensor([0.5, 0.25]), Options(1))
        results.append(result - z)
    assert torch.allclose(*results, rtol=0, atol=0.01 * float(results[1].abs().max()))
    with pytest.raises(BadValueError, match=r"its x_embedder is kept as torch\.uint8"):
        FluxAdapter.from_transformer(network)


def test_biases_and_norms_are_never_left_quantised(host: LocalHost) -> None:
    tensors = tensors_of(NARROW)
    path = host.folders.models / NAME
    path.parent.mkdir(parents=True)
    writer = gguf.GGUFWriter(path, "flux")
    writer.add_string("kintsugi", json.dumps({"transformer": {**FLUX_CONFIG, **NARROW}}))
    for name, tensor in tensors.items():
        writer.add_tensor(name, gguf.quants.quantize(tensor.numpy(), Kind.BF16), raw_dtype=Kind.BF16)
    finish(writer)
    network = denoiser(host)
    assert torch.equal(network.proj_out.bias, tensors["final_layer.linear.bias"].bfloat16().float())
    assert velocity(network, torch.float32).isfinite().all()


def test_auto_takes_a_file_of_the_usual_name_and_only_load_prior_offers_it(host: LocalHost) -> None:
    write_gguf(host.folders.models / NAME, tensors_of(NARROW), Kind.Q8_0, NARROW)
    assert find_base("flux").name == NAME and find_base("flux").stored == "gguf"
    assert base_choices() == [] and base_choices(quantised=True) == [NAME]
    assert NAME not in str(KintsugiLoadGenerator.INPUT_TYPES())


def test_an_unusual_name_is_told_by_its_tensors(host: LocalHost) -> None:
    name = "diffusion_models/mine.gguf"
    write_gguf(host.folders.models / name, tensors_of(NARROW), Kind.Q8_0, NARROW)
    assert find_base("flux").name == name
    other = {key: tensor for key, tensor in tensors_of(NARROW).items() if key != "img_in.weight"}
    write_gguf(host.folders.models / name, {**other, "img_in.weight": torch.zeros(32, 384)}, Kind.Q8_0, NARROW)
    with pytest.raises(WeightsError, match=r"mine\.gguf: holds no FluxTransformer2DModel of flux: found FLUX\.1 Fill"):
        denoiser(host, name)


@pytest.mark.parametrize(
    ("name", "shape", "fault"),
    [
        (LAYER, None, r"transformer_blocks\.0\.attn\.to_q\.weight is missing"),
        (LAYER, (96, 64), r"transformer_blocks\.0\.attn\.to_q\.weight is \[32, 64\], expected \[32, 32\]"),
        ("extra.weight", (2, 32), r"tensor extra\.weight is unknown"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(host: LocalHost, name: str, shape: tuple[int, ...] | None, fault: str) -> None:
    tensors = {key: tensor for key, tensor in tensors_of(NARROW).items() if key != name}
    write_gguf(host.folders.models / NAME, {**tensors, **({name: torch.zeros(shape)} if shape else {})}, Kind.Q8_0, NARROW)
    with pytest.raises(WeightsError, match=fault):
        denoiser(host)


def test_a_file_cut_short_is_refused(host: LocalHost) -> None:
    path = host.folders.models / NAME
    write_gguf(path, tensors_of(NARROW), Kind.Q8_0, NARROW)
    for size in (path.stat().st_size // 2, 100, 2):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(WeightsError, match=r"flux1-dev-Q8_0\.gguf: cannot be read as GGUF"):
            denoiser(host)


def test_a_kind_that_diffusers_cannot_compute_with_is_refused_by_name(host: LocalHost) -> None:
    path = host.folders.models / NAME
    path.parent.mkdir(parents=True)
    writer = gguf.GGUFWriter(path, "flux")
    for name, tensor in tensors_of(NARROW).items():
        if name == LAYER:
            writer.add_tensor(name, np.zeros((96, 54), dtype=np.uint8), raw_dtype=Kind.TQ1_0)
        else:
            writer.add_tensor(name, tensor.numpy())
    finish(writer)
    with pytest.raises(WeightsError, match=r"img_attn\.qkv\.weight has a quantization type: .*Q8_0"):
        denoiser(host)


def test_without_the_package_the_way_out_is_said(
    host: LocalHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_gguf(host.folders.models / "diffusion_models" / "mine.gguf", tensors_of(NARROW), Kind.Q8_0, NARROW)
    monkeypatch.setattr("kintsugi.core.weights.gguf_files.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"mine\.gguf: is a GGUF file, which the package gguf reads\. pip install gguf"):
        denoiser(host, "diffusion_models/mine.gguf")
    assert find_base("flux").name == "vae/ae.safetensors"
    assert "Passed over while looking for flux" in caplog.text


def test_what_gguf_weights_cannot_have_is_said(host: LocalHost) -> None:
    write_gguf(host.folders.models / NAME, tensors_of(NARROW), Kind.Q8_0, NARROW)
    with pytest.raises(
        BadValueError, match=r"weights in gguf do not go with offload 'layerwise fp8'\. Choose offload none or model or group"
    ):
        denoiser(host, offload="layerwise fp8")
    with pytest.raises(BadValueError, match=r"weights are quantised already \(gguf\)\. Choose quantization none"):
        load_prior("flux", NAME, quantization="nf4")
    with pytest.raises(WeightsError, match=r"GGUF files are not read for sd3"):
        find_base("sd3", NAME).denoiser()
