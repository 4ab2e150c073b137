"""Runs what is queued, one prompt after the other on a thread of its own, while the event loop answers browsers."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

from ...core.errors import KintsugiError
from ...core.folders import Folders
from ...core.graph.cache import Cache, LastPromptCache
from ...core.graph.executor import Executor
from ...core.graph.faults import Validation, fault
from ...core.graph.registry import Registry
from ...core.graph.validation import validate
from ...core.runtime import LocalHost, using_host
from .host import ServerHost
from .hub import Hub
from .jobs import Job, JobStore, Status
from .messages import Message, now, status
from .reporting import Reporter
from .submission import Submission

log = logging.getLogger("kintsugi")

Result = TypeVar("Result")
# How long the end of the server waits for a step or tile that has begun.
PATIENCE = 30.0
_STATUS: dict[str, Status] = {"success": "completed", "error": "failed", "interrupted": "cancelled"}


@dataclass(frozen=True)
class EngineSettings:
    """Where and how prompts are computed. preview_size: longest side in pixels. new_cache: how results are remembered."""

    device: torch.device
    dtype: torch.dtype
    folders: Folders
    stores_workflows: bool = True
    shows_previews: bool = True
    preview_size: int = 512
    new_cache: Callable[[], Cache] = LastPromptCache


class Engine:
    """jobs: every prompt by id. hub: the browsers that are connected."""

    def __init__(self, registry: Registry, settings: EngineSettings) -> None:
        self.jobs, self.hub = JobStore(), Hub()
        self._registry, self._settings = registry, settings
        self._executor = Executor(registry, settings.new_cache())
        self._numbers = itertools.count()
        # One thread, so that prompts are taken in as they came, and the code of node classes is asked by one at a time.
        self._asking = ThreadPoolExecutor(1, "kintsugi-asking")
        self._worker = threading.Thread(target=self._work, name="kintsugi-worker", daemon=True)
        self._closing, self._free_wanted = threading.Event(), threading.Event()
        self._reporter: Reporter | None = None

    def start(self) -> None:
        """To be called on the event loop that serves the browsers."""
        self.hub.start()
        self._worker.start()

    async def close(self) -> None:
        """Stops the running prompt, disconnects the browsers and waits for the worker. What is queued is not run."""
        self._closing.set()
        self.jobs.wake()
        self.jobs.interrupt()
        await self.hub.close()
        await asyncio.to_thread(self._worker.join, PATIENCE)
        if self._worker.is_alive():
            log.warning("A node did not stop within %d seconds and is left behind.", PATIENCE)
        self._asking.shutdown(wait=False, cancel_futures=True)

    # What routes ask for, on the event loop.

    async def aside(self, function: Callable[[], Result]) -> Result:
        """function() on another thread and on this server's host: whatever asks node classes, which may read folders."""
        return await asyncio.get_running_loop().run_in_executor(self._asking, self._on_host, function)

    def _on_host(self, function: Callable[[], Result]) -> Result:
        settings = self._settings
        with using_host(LocalHost(settings.device, settings.dtype, folders=settings.folders, stores_workflows=settings.stores_workflows)):
            return function()

    async def submit(self, wanted: Submission) -> Job | Validation:
        """Queues a prompt; the job, or the faults for which none of it can run."""
        validation = await self.aside(lambda: self._validated(wanted))
        if validation.error is not None:
            return validation
        job = self._job(wanted, validation)
        if not self.jobs.add(job):
            return Validation(error=fault("invalid_prompt_id", f"There is a prompt with the id {job.id} already"))
        self._tell_status()
        return job

    def _validated(self, wanted: Submission) -> Validation:
        self._registry.refresh()
        try:
            return validate(wanted.prompt, self._registry, wanted.targets)
        except KintsugiError as error:
            return Validation(error=fault("invalid_prompt", str(error)))

    def _job(self, wanted: Submission, validation: Validation) -> Job:
        created, count = now(), next(self._numbers)
        number = wanted.number if wanted.number is not None else count
        extra_data = {**wanted.extra_data, "create_time": created}
        if wanted.client_id is not None:
            extra_data["client_id"] = wanted.client_id
        return Job(
            id=wanted.prompt_id,
            number=-number if wanted.front else number,
            prompt=wanted.prompt,
            outputs=validation.outputs,
            extra_data=extra_data,
            client_id=wanted.client_id,
            create_time=created,
            node_errors=validation.node_errors,
        )

    def cancel(self, job_ids: Collection[str]) -> bool:
        """Takes these jobs out of the queue and stops the running one if it is among them; whether there was any."""
        dropped = self.drop_pending(job_ids)
        return any([dropped > 0, *(self.jobs.interrupt(job_id) for job_id in job_ids)])

    def drop_pending(self, job_ids: Collection[str] | None = None) -> int:
        """Forgets these waiting jobs, or all; how many there were."""
        dropped = self.jobs.drop_pending(job_ids)
        self._tell_status()
        return dropped

    def free(self) -> None:
        """Gives back the memory of models and results before the next prompt, at once when none runs.

        Loaded models are results of the nodes that loaded them, so that both go together.
        """
        self._free_wanted.set()
        self.jobs.wake()

    def greeting(self, sid: str) -> list[Message]:
        """What a tab is told when it connects, and how its running prompt is when it comes back."""
        job, reporter = self.jobs.running, self._reporter
        is_its_own = job is not None and job.client_id == sid and reporter is not None
        return [status(self.jobs.remaining, sid), *(reporter.present if reporter is not None and is_its_own else ())]

    def _tell_status(self) -> None:
        self.hub.post(status(self.jobs.remaining))

    # The worker's thread.

    def _work(self) -> None:
        settings = self._settings
        host = ServerHost(settings.device, settings.dtype, folders=settings.folders, stores_workflows=settings.stores_workflows)
        with using_host(host):
            while not self._closing.is_set():
                self._free_if_wanted()
                job = self.jobs.take()
                if job is not None:
                    self._run_job(job, host)

    def _run_job(self, job: Job, host: ServerHost) -> None:
        self._tell_status()
        self._reporter = reporter = Reporter(job, self.hub, self._settings.preview_size)
        host.stop, host.shows_previews = job.stop, self._shows_previews(job)
        job.start_time = now()
        outcome = self._execute(job, reporter)
        job.end_time = now()
        if outcome != "completed":
            # A failure's traceback and its frames hold each other, and tensors with them.
            gc.collect()
        self.jobs.finish(job, outcome)
        self._tell_status()
        reporter.end()

    def _execute(self, job: Job, reporter: Reporter) -> Status:
        """The border of the worker: whatever goes wrong beyond a node's own code ends this job, and never the worker."""
        try:
            result = self._executor.run(job.prompt, job.outputs, reporter, job.extra_data)
            return _STATUS[result.status]
        except KintsugiError as error:
            reporter.crash(str(error), type(error).__name__)
        except (Exception, SystemExit) as error:
            log.exception("Prompt %s ended in an error of the program.", job.id)
            reporter.crash(f"The prompt could not be run: {type(error).__name__}: {error}", type(error).__name__)
        return "failed"

    def _shows_previews(self, job: Job) -> bool:
        """The page may choose for one prompt; nobody is shown anything when its tab is gone at the start."""
        method = job.extra_data.get("preview_method")
        chosen = self._settings.shows_previews if method in (None, "default") else method != "none"
        return chosen and job.client_id is not None

    def _free_if_wanted(self) -> None:
        if not self._free_wanted.is_set():
            return
        self._free_wanted.clear()
        self._executor = Executor(self._registry, self._settings.new_cache())
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
