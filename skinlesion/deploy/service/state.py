"""What every route needs: the model, its line, the decoder, the counters."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import numpy as np

from skinlesion.config.deploy import LimitsConfig
from skinlesion.data.image_io import Image
from skinlesion.deploy.service.metrics import ServiceMetrics
from skinlesion.deploy.service.model import Model
from skinlesion.deploy.service.problems import RequestError
from skinlesion.deploy.service.queue import Line
from skinlesion.deploy.service.uploads import pixels

Kept = TypeVar("Kept")


class AppState:
    """A running service's parts.

    Args:
        model: Loaded.
        limits: Of requests.
    """

    def __init__(self, model: Model, limits: LimitsConfig) -> None:
        self.model = model
        self.limits = limits
        self.measures = ServiceMetrics()
        self.measures.names_bundle(model.about.version, model.about.precision)
        self.line = self._new_line()
        self._work: asyncio.Task[None] | None = None  # the line's

    @property
    def ready(self) -> bool:
        """Whether the model answers."""
        return self._work is not None and not self._work.done() and not self.line.failing

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Serve the line; every request has been answered when this ends, the server sees to that."""
        # One thread: decoding takes milliseconds, and two large images at once would double the peak of memory.
        with ThreadPoolExecutor(1, "decoder") as self._decoder:
            self.line = self._new_line()
            await self._warm_up()
            self._work = asyncio.create_task(self.line.run())
            yield
            self._work.cancel()
            with suppress(asyncio.CancelledError):
                await self._work
            self.line.close()

    def _new_line(self) -> Line:
        return Line(
            self.model,
            capacity=self.limits.waiting,
            batch=self.limits.batch,
            timeout=self.limits.timeout,
            watch=self.measures.batch,
        )

    async def _warm_up(self) -> None:
        """Let the model judge two full batches: the second says how long an image takes."""
        height, width = self.model.about.sizes[0]
        images = [np.full((height, width, 3), 127, np.uint8)] * self.limits.batch
        for _ in range(2):
            start = time.perf_counter()
            await asyncio.to_thread(self.model.predict, images, [{}] * len(images))
            self.line.seconds = (time.perf_counter() - start) / len(images)

    def refuse_endless(self, evaluations: int) -> None:
        """Refuse what could not be answered in time even if nobody else asked.

        Raises:
            RequestError: It says how long it would take.
        """
        seconds = evaluations * self.line.seconds
        if seconds > self.limits.timeout:
            raise RequestError(
                422,
                "too-much-work",
                f"this takes about {seconds:.0f} s, longer than the {self.limits.timeout:g} s that a request may take; "
                "ask for less at a time, or start the service with a higher limits.timeout",
            )

    async def decode(self, files: Sequence[bytes], keep: Callable[[Image], Kept]) -> list[Kept]:
        """Read uploads, and keep no more of them than is needed: what waits in line is then small.

        Args:
            files: Their bytes.
            keep: Makes what is kept of an image (h, w, 3).

        Raises:
            RequestError: Of the first that cannot be read.
        """
        loop = asyncio.get_running_loop()

        def read(data: bytes) -> Kept:
            return keep(pixels(data, self.limits))

        kept = []
        for number, data in enumerate(files, start=1):
            try:
                kept.append(await loop.run_in_executor(self._decoder, read, data))
            except RequestError as problem:
                raise problem.of_image(number) from None
        return kept
