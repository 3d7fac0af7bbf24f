"""The parts that all requests share: model, queue, decoder, metrics, and the time that a request may take."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np
from fastapi import Request

from skinlesion.config.deploy import LimitsConfig
from skinlesion.data.image_io import Image
from skinlesion.deploy.service.errors import RequestError, busy
from skinlesion.deploy.service.forms import FieldSchema, Form, read_form, text_fields
from skinlesion.deploy.service.middleware import ServiceMetrics
from skinlesion.deploy.service.queue import MAX_WAIT, InferenceQueue, Lane, Model
from skinlesion.deploy.service.uploads import Decoder

T = TypeVar("T")


class AppState:
    """The state of a running service.

    Args:
        model: Loaded model.
        limits: Limits of requests.
    """

    def __init__(self, model: Model, limits: LimitsConfig) -> None:
        self.model = model
        self.limits = limits
        self.fields = text_fields(model.about)
        self.metrics = ServiceMetrics()
        self.metrics.bundle.info({"version": model.about.version, "precision": model.about.precision})
        self.queue = InferenceQueue(
            model,
            capacity=limits.waiting,
            batch=limits.batch,
            timeout=limits.timeout,
            on_batch=self.metrics.record_batch,
        )
        self.decoder = Decoder(limits)
        self.metrics.waiting.set_function(lambda: self.queue.waiting)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work on the queue; the server ends this context only after every request has been answered."""
        height, width = self.model.about.sizes[0]
        images = [self.model.prepare(np.full((height, width, 3), 127, np.uint8))] * self.limits.batch
        for _ in range(2):  # full batches that warm up; the second tells how long an image takes
            start = time.perf_counter()
            await asyncio.to_thread(self.model.predict_prepared, images, [{}] * len(images))
            self.queue.seconds_per_image = (time.perf_counter() - start) / len(images)
        await asyncio.to_thread(self.decoder.begin)
        try:
            async with self.queue.running():
                yield
        finally:
            self.decoder.stop()

    def refuse_too_much_work(self, images: int) -> None:
        """Refuse a request for more predictions than fit into the timeout, even on an idle service.

        Raises:
            RequestError: 422 with the time that it would take.
        """
        seconds = images * self.queue.seconds_per_image
        if seconds > self.limits.timeout:
            raise RequestError(
                422,
                "too-much-work",
                f"this takes about {seconds:.0f} s, more than the {self.limits.timeout:g} s that a request may take; "
                "ask for less at a time, or start the service with a higher limits.timeout",
            )

    def deadline(self) -> float:
        """Return the latest time, on the event loop's clock, to answer a request that begins now."""
        return asyncio.get_running_loop().time() + self.limits.timeout

    def form_fields(self, names: Sequence[str]) -> dict[str, FieldSchema]:
        """The fields of a form: the model's facts, and others by name."""
        return {name: self.fields[name] for name in (*self.model.about.encoder.names, *names)}

    async def receive(self, request: Request, names: Sequence[str], deadline: float) -> Form:
        """Read a request's form with the model's facts and the text fields `names`.

        Raises:
            RequestError: 408 after the deadline, or what is wrong with the form.
        """
        try:
            async with asyncio.timeout_at(deadline):
                return await read_form(request, self.form_fields(names), self.limits, self.model.about.encoder)
        except TimeoutError:
            detail = f"the request did not arrive within {self.limits.timeout:g} s; send it again"
            raise RequestError(408, "slow-upload", detail) from None

    @asynccontextmanager
    async def model_until(self, deadline: float) -> AsyncIterator[None]:
        """Wait for the model no longer than the deadline.

        Raises:
            RequestError: 503 with the time to retry after.
        """
        try:
            async with asyncio.timeout_at(deadline):
                yield
        except TimeoutError:
            raise busy(f"no answer within {self.limits.timeout:g} s", self.limits.timeout / 4) from None

    async def decode(
        self, files: Sequence[bytes], prepare: Callable[[Image], T], *, deadline: float, lane: Lane = Lane.PREDICTION
    ) -> list[T]:
        """Decode uploads and keep of each what `prepare` makes of it, so that waiting requests take little memory.

        Raises:
            RequestError: An image cannot be decoded; the error names the first one. Or 503: the deadline would pass.
        """
        costs = [await _of_image(number, self.decoder.cost(data)) for number, data in enumerate(files, start=1)]
        left = deadline - asyncio.get_running_loop().time()
        decoded, ahead = self.decoder.waits(costs)
        if decoded + self.queue.estimated_wait(0, lane) > left * (MAX_WAIT if ahead else 1):
            raise busy("large images are waiting", ahead)
        waiting = [self.decoder.start(data, cost, prepare) for data, cost in zip(files, costs, strict=True)]
        try:
            return [await _of_image(number, each) for number, each in enumerate(waiting, start=1)]
        finally:
            for each in waiting:
                each.cancel()


async def _of_image(number: int, work: Awaitable[T]) -> T:
    """Wait for work on an image; an error then says which."""
    try:
        return await work
    except RequestError as error:
        error.image = number
        raise
