"""The shipped workflow with the package's own weights on the server: previews, interruption, and memory over many prompts."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kintsugi.core.graph.conversion import prompt_of
from kintsugi.core.graph.documents import read_workflow
from kintsugi.headless.node_registry import full_registry
from kintsugi.headless.run import find_workflow
from PIL import Image
from serving_prompts import PATIENCE, Served, serving, write_photo

REGISTRY = full_registry()


def restoring(seed: int = 0) -> dict[str, Any]:
    """The workflow restore_photo, on the photo of the test, with the weights of the package."""
    prompt = prompt_of(read_workflow(find_workflow("restore_photo")), REGISTRY)
    for each in prompt.values():
        changes = {"KintsugiLoadPhoto": {"image": "photo.png"}, "KintsugiLoadGenerator": {"weights": "embedded"}}
        each["inputs"] |= changes.get(each["class_type"], {})
        if "seed" in each["inputs"]:
            each["inputs"]["seed"] = seed
    return prompt


def alive() -> Counter[str]:
    """How many tensors and networks there are."""
    gc.collect()
    kinds = {"tensor": torch.Tensor, "network": torch.nn.Module}
    return Counter(name for each in gc.get_objects() for name, kind in kinds.items() if issubclass(type(each), kind))


async def _restored(served: Served, prompt: dict[str, Any]) -> dict[str, Any]:
    job = await served.done(await served.queue(prompt))
    assert job["status"] == "completed", job
    return job


async def _freed(served: Served, networks: int) -> None:
    """Ask for the memory of models and results, and wait until no more networks are left than that."""
    await served.post("/free", {"unload_models": True})
    deadline = time.monotonic() + PATIENCE
    while alive()["network"] > networks:
        assert time.monotonic() < deadline, alive()
        await asyncio.sleep(0.2)


def test_the_workflow_restores_a_photo_and_its_result_carries_it(tmp_path: Path) -> None:
    write_photo(tmp_path / "input")

    async def scenario() -> None:
        async with serving(tmp_path, REGISTRY) as served:
            tab = await served.tab()
            prompt_id = await served.queue(restoring(), client_id=tab.sid, extra_data={"extra_pnginfo": {"workflow": {"nodes": []}}})
            await tab.end(prompt_id)
            assert "progress" in tab.kinds() and "execution_success" in tab.kinds()
            preview = (await served.get(f"/jobs/{prompt_id}"))["preview_output"]
            assert (preview["filename"], preview["type"]) == ("restored_00001_.png", "output")

    asyncio.run(scenario())
    with Image.open(tmp_path / "output/restored_00001_.png") as image:
        assert np.asarray(image).shape == (24, 32, 3)
        assert {"prompt", "workflow"} <= set(image.info)


def test_ten_prompts_leave_no_more_behind_than_the_first(tmp_path: Path) -> None:
    write_photo(tmp_path / "input")

    async def scenario() -> None:
        async with serving(tmp_path, REGISTRY) as served:
            # What the libraries make when they are first used stays, and is none of ours.
            networks = alive()["network"]
            await _restored(served, restoring())
            await _freed(served, networks)
            before = alive()
            await _restored(served, restoring())
            first = alive()
            assert first["network"] > before["network"]
            for _ in range(9):
                await _restored(served, restoring())
            assert alive() <= first
            for seed in (1, 2, 0):
                await _restored(served, restoring(seed))
            assert alive() <= first
            prompt_id = await served.queue(restoring(3))
            await served.post("/interrupt", {"prompt_id": prompt_id})
            await served.done(prompt_id)
            (tmp_path / "input/photo.png").write_bytes(b"no picture")
            assert (await served.done(await served.queue(restoring())))["status"] == "failed"
            assert alive() <= first
            await _freed(served, networks)
            assert alive() <= before

    asyncio.run(scenario())
