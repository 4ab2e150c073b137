"""A pack for trials alone: it tells what lives in ComfyUI's process and what our host is told, and loads a VAE as a prior."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch
from aiohttp import web
from comfy_execution.progress import get_progress_state
from server import PromptServer


def ours(name: str) -> Any:
    """A module of the pack, whatever its folder is called."""
    return next(module for key, module in list(sys.modules.items()) if "custom_nodes" in key and key.endswith(f".{name}"))


@PromptServer.instance.routes.get("/kintsugi_probe")
async def probe(_: web.Request) -> web.Response:
    gc.collect()
    living = [kind for kind in map(type, gc.get_objects()) if isinstance(kind, type)]
    held = [model for model in comfy.model_management.loaded_models() if type(model).__name__ == "HeldNetwork"]
    return web.json_response(
        {
            "tensors": sum(issubclass(kind, torch.Tensor) for kind in living),
            "modules": sum(issubclass(kind, torch.nn.Module) for kind in living),
            "networks": sum(str(kind.__module__).startswith("diffusers") and issubclass(kind, torch.nn.Module) for kind in living),
            "held": len(held),
            "held_bytes": sum(model.loaded_size() for model in held),
        }
    )


@PromptServer.instance.routes.get("/kintsugi_probe/steps")
async def steps(_: web.Request) -> web.Response:
    """Steps done and asked for, by node."""
    nodes = get_progress_state().nodes
    return web.json_response({node: [state["value"], state["max"]] for node, state in nodes.items()})


@PromptServer.instance.routes.get("/kintsugi_probe/host")
async def host(_: web.Request) -> web.Response:
    module = ours("nodes.comfy_host")
    found = module.comfy_host()
    told = {name: str(getattr(found, name)) for name in ("device", "dtype", "vae_dtype", "text_dtype", "spares_memory", "stores_workflows")}
    folders = [str(folder) for folder in found.folders.of_models("kintsugi")]
    return web.json_response({**told, "preview_side": str(module.preview_side(module._options())), "folders": folders})


class ProbePrior:
    """A VAE file of the folder `vae` as the prior of a family, with the numbers of that family's latents."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("KINTSUGI_PRIOR",), "load", "trial"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"vae": ("STRING", {}), "configuration": ("STRING", {})}}

    def load(self, vae: str, configuration: str) -> tuple[Any]:
        package = ours("nodes.comfy_host").__name__.removesuffix(".nodes.comfy_host")
        vaes, priors, prior, codec, offload = (
            sys.modules[f"{package}.core.{name}"]
            for name in ("weights.vaes", "weights.priors", "models.prior", "models.codec", "models.offload")
        )
        file = vaes.read_vae_network(Path(folder_paths.get_full_path("vae", vae)), configuration)
        return (prior.Prior(configuration, codec.LatentCodec(offload.place(priors.vae_of(file), torch.float32))),)


NODE_CLASS_MAPPINGS = {"ProbePrior": ProbePrior}
