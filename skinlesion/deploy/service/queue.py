"""The queue before the model: bounded, in micro-batches, with two lanes that take turns.

A request is admitted only if there is room and its wait, estimated from recent times per image, stays well inside the
request's timeout, so that every admitted request is answered. No batch waits to fill up: while the model is busy, the
next batch gathers. Explanations, many images each, have a lane of their own and neither delay predictions for long nor
starve.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from skinlesion.data.image_io import Image
from skinlesion.deploy.manifest import Manifest
from skinlesion.deploy.service.errors import RequestError, busy
from skinlesion.inference.members import Facts, Prepared
from skinlesion.inference.predictions import Predictions

log = logging.getLogger(__name__)

MAX_WAIT = 0.5  # share of the timeout that the estimated wait may take: estimates are inexact
_SMOOTHING = 0.2  # weight of the newest batch in the running mean of seconds per image

Floats = npt.NDArray[np.floating[Any]]


class Model(Protocol):
    """A loaded bundle. The service calls `prepare` and `predict_prepared` in threads of their own."""

    @property
    def about(self) -> Manifest:
        """The bundle's version, members, vocabulary and thresholds."""

    def prepare(self, image: Image) -> Prepared:
        """Fit an image (h, w, 3) into each of the members' input sizes."""

    def predict_prepared(self, images: Sequence[Prepared], facts: Sequence[Facts]) -> Predictions:
        """Predict images that `prepare` gave, each with the facts about its patient."""


@dataclass(frozen=True)
class ImagePrediction:
    """The model's prediction for one image."""

    probabilities: Floats  # (7,), calibrated if the ensemble was
    uncalibrated: Floats  # (7,), mean of the members
    predicted: int  # position of the predicted diagnosis, which the vote decides
    members: Floats  # (M, 7)
    ood_score: float | None  # None: the model has no statistics of its training images
    ood: bool | None  # whether the score is above the threshold


def predict_each(model: Model, images: Sequence[Prepared], facts: Sequence[Facts]) -> list[ImagePrediction]:
    """Predict B images as one batch, one result an image."""
    found = model.predict_prepared(images, facts)
    uncalibrated = found.probabilities if found.uncalibrated is None else found.uncalibrated
    assert found.members is not None
    return [
        ImagePrediction(
            probabilities=found.probabilities[b],
            uncalibrated=uncalibrated[b],
            predicted=int(found.predicted_targets[b]),
            members=found.members[:, b],
            ood_score=None if found.ood_score is None else float(found.ood_score[b]),
            ood=None if found.ood is None else bool(found.ood[b]),
        )
        for b in range(len(images))
    ]


class Lane(Enum):
    """The two lanes of the queue."""

    PREDICTION = "prediction"
    EXPLANATION = "explanation"


@dataclass(frozen=True)
class _Pending:
    image: Prepared
    facts: Facts
    result: asyncio.Future[ImagePrediction]


class InferenceQueue:
    """Images on their way to the model.

    Args:
        model: Model that predicts, called from one thread.
        capacity: Most images admitted and not yet answered.
        batch: Most images that the model takes at once.
        timeout: Seconds within which a request is answered.
        on_batch: Called after each batch with its number of images and its seconds.

    Attributes:
        seconds_per_image: Running mean of the model's time.
        failing: Whether the last batch failed.
    """

    def __init__(
        self, model: Model, *, capacity: int, batch: int, timeout: float, on_batch: Callable[[int, float], None]
    ) -> None:
        self.seconds_per_image = 0.0
        self.failing = False
        self._model = model
        self._capacity, self._batch, self._timeout = capacity, batch, timeout
        self._on_batch = on_batch
        self._lanes: dict[Lane, deque[_Pending]] = {lane: deque() for lane in Lane}
        self._reserved = dict.fromkeys(Lane, 0)
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Images admitted and not yet answered."""
        return sum(self._reserved.values())

    @property
    def ready(self) -> bool:
        """Whether the model answers."""
        return self._worker is not None and not self._worker.done() and not self.failing

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work on the queue until the context ends; a batch that is with the model is finished first."""
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "model")
        self._worker = asyncio.create_task(self._work())
        try:
            yield
        finally:
            self._worker.cancel()
            with suppress(asyncio.CancelledError):
                await self._worker
            await asyncio.to_thread(self._thread.shutdown)  # the loop goes on and sends what is left to say

    @contextmanager
    def reserve(self, images: int, lane: Lane = Lane.PREDICTION) -> Iterator[Callable[[int], None]]:
        """Reserve places in a lane for the time of a request; yields a function that reserves further places.

        A request that is alone in its lane is always admitted.

        Raises:
            RequestError: 503 with the time to retry after: the queue is full, or the wait would be too long.
        """
        own = 0

        def reserve_more(more: int) -> None:
            nonlocal own
            full = lane == Lane.PREDICTION and self._reserved[lane] + more > self._capacity
            late = self.estimated_wait(more, lane) > MAX_WAIT * self._timeout
            if self._reserved[lane] > own and (full or late):
                raise busy(f"{self.waiting} images are waiting", self.estimated_wait(0, lane))
            self._reserved[lane] += more
            own += more

        reserve_more(images)
        try:
            yield reserve_more
        finally:
            self._reserved[lane] -= own

    async def predict(
        self, images: Sequence[Prepared], facts: Sequence[Facts], lane: Lane = Lane.PREDICTION
    ) -> list[ImagePrediction]:
        """Wait for the predictions of images for which places are reserved.

        Args:
            images: Images from `Model.prepare`.
            facts: Facts about the patient of each image.
            lane: Lane in which the images wait.

        Raises:
            RequestError: 500, the model failed.
        """
        loop = asyncio.get_running_loop()
        pending = [_Pending(image, f, loop.create_future()) for image, f in zip(images, facts, strict=True)]
        self._lanes[lane].extend(pending)
        self._arrived.set()
        return await asyncio.gather(*(each.result for each in pending))

    def estimated_wait(self, images: int, lane: Lane) -> float:
        """Seconds until `images` more are answered; the other lane takes every second turn."""
        own = self._reserved[lane] + images
        return self.seconds_per_image * (own + min(self.waiting - self._reserved[lane], own))

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            for lane in self._lanes.values():
                if batch := self._next_batch(lane):
                    await self._process(batch)
            if not any(self._lanes.values()):
                self._arrived.clear()

    def _next_batch(self, lane: deque[_Pending]) -> list[_Pending]:
        """Take the next batch, without images whose request has given up."""
        batch: list[_Pending] = []
        while lane and len(batch) < self._batch:
            pending = lane.popleft()
            if not pending.result.done():
                batch.append(pending)
        return batch

    async def _process(self, batch: list[_Pending]) -> None:
        images, facts = [each.image for each in batch], [each.facts for each in batch]
        start = time.perf_counter()
        job = asyncio.get_running_loop().run_in_executor(self._thread, predict_each, self._model, images, facts)
        await asyncio.wait({job})
        error = job.exception()
        self.failing = error is not None
        if error is not None:
            log.error("the model failed on %d images: %s", len(batch), _location(error))
        else:
            self._record(len(batch), time.perf_counter() - start)
        for position, each in enumerate(batch):
            if each.result.done():  # its request has given up meanwhile
                continue
            if error is not None:
                each.result.set_exception(RequestError(500, "model-failed", "the model failed; see the service's log"))
            else:
                each.result.set_result(job.result()[position])

    def _record(self, images: int, seconds: float) -> None:
        newest, mean = seconds / images, self.seconds_per_image
        self.seconds_per_image = newest if mean == 0 else mean + _SMOOTHING * (newest - mean)
        self._on_batch(images, seconds)


def _location(error: BaseException) -> str:
    """An error's type and place, without its message, which could hold facts about a patient."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__} at {' > '.join(frames[-3:])}"
