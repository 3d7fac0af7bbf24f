"""The waiting line before the model: bounded, in micro-batches, with two lanes that take turns.

A request is let in only if the line has room and the wait, estimated from how long images took so far, is well inside
the time that a request may take: whoever is let in is answered. Nothing waits for a batch to fill: while the model is
at work, the next batch gathers by itself. Explanations, many images each, have a lane of their own and so can neither
hold up predictions for long nor be starved by them.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

from skinlesion.data.image_io import Image
from skinlesion.deploy.runtime import Facts, Prepared
from skinlesion.deploy.service.model import Model, Opinion, opinions
from skinlesion.deploy.service.problems import RequestError, busy

log = logging.getLogger(__name__)

_SHARE = 0.5  # of a request's time that the estimated wait may take: estimates are not exact
_NEWEST = 0.2  # weight of the newest batch in the running mean of seconds an image


class Lane(IntEnum):
    """The two lanes."""

    PREDICTION = 0
    EXPLANATION = 1


@dataclass(frozen=True)
class _Waiting:
    image: Image | Prepared
    facts: Facts
    opinion: asyncio.Future[Opinion]


class Line:
    """Images on their way to a model.

    Args:
        model: Called from one thread.
        capacity: Predictions that have been let in and not yet answered, images.
        batch: Images that the model judges at once.
        timeout: Seconds in which a request is to be answered.
        watch: Called with the number of images and the seconds of each batch.
    """

    def __init__(
        self,
        model: Model,
        *,
        capacity: int,
        batch: int,
        timeout: float,
        watch: Callable[[int, float], None],
    ) -> None:
        self.seconds = 0.0  # an image, running mean
        self.failing = False  # the last batch failed
        self._model = model
        self._capacity = capacity
        self._batch = batch
        self._timeout = timeout
        self._watch = watch
        self._lanes: tuple[deque[_Waiting], deque[_Waiting]] = (deque(), deque())
        self._held = [0, 0]  # images that hold a place, by lane
        self._something = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "model")

    @property
    def held(self) -> int:
        """Images that have been let in and not yet answered."""
        return sum(self._held)

    @contextmanager
    def places(self, images: int, lane: Lane = Lane.PREDICTION) -> Iterator[Callable[[int], None]]:
        """Hold places in a lane while a request is worked on; what is yielded takes as many more as it is told.

        A request that is alone in its lane is always let in.

        Raises:
            RequestError: 503, there is no room, or the wait would be too long; it says when to try again.
        """
        mine = 0

        def take(more: int) -> None:
            nonlocal mine
            full = lane == Lane.PREDICTION and self._held[lane] + more > self._capacity
            late = self._wait(more, lane) > _SHARE * self._timeout
            if self._held[lane] > mine and (full or late):
                raise busy(f"{self.held} images are waiting", self._wait(0, lane))
            self._held[lane] += more
            mine += more

        take(images)
        try:
            yield take
        finally:
            self._held[lane] -= mine

    async def judge(
        self, images: Sequence[Image | Prepared], facts: Sequence[Facts], lane: Lane = Lane.PREDICTION
    ) -> list[Opinion]:
        """Wait for the model's opinion of some images, for which places are held.

        Args:
            images: (h, w, 3) each, or prepared.
            facts: One patient's an image.
            lane: Where they wait.

        Raises:
            RequestError: 500, the model failed.
        """
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(image, f, loop.create_future()) for image, f in zip(images, facts, strict=True)]
        self._lanes[lane].extend(waiting)
        self._something.set()
        return await asyncio.gather(*(each.opinion for each in waiting))

    async def run(self) -> None:
        """Serve the line until cancelled."""
        while True:
            await self._something.wait()
            for lane in self._lanes:
                batch = self._next(lane)
                if batch:
                    await self._serve(batch)
            if not any(self._lanes):
                self._something.clear()

    def close(self) -> None:
        """Let the model's thread go, after the batch that it works on."""
        self._thread.shutdown()

    def _wait(self, images: int, lane: Lane) -> float:
        """Seconds until `images` more would be answered; the other lane takes every second turn."""
        other = self._held[1 - lane]
        own = self._held[lane] + images
        return self.seconds * (own + min(other, own))

    def _next(self, lane: deque[_Waiting]) -> list[_Waiting]:
        """Take the next batch; those that nobody waits for any more are left out."""
        batch: list[_Waiting] = []
        while lane and len(batch) < self._batch:
            waiting = lane.popleft()
            if not waiting.opinion.done():
                batch.append(waiting)
        return batch

    async def _serve(self, batch: list[_Waiting]) -> None:
        start = time.perf_counter()
        answer = asyncio.get_running_loop().run_in_executor(self._thread, self._opinions, batch)
        await asyncio.wait({answer})
        error = answer.exception()
        self.failing = error is not None
        if error is not None:
            log.error("the model failed on %d images: %s", len(batch), _place(error))
        else:
            self._learn(len(batch), time.perf_counter() - start)
        given: Sequence[Opinion | None] = [None] * len(batch) if error is not None else answer.result()
        for each, opinion in zip(batch, given, strict=True):
            if each.opinion.done():  # its request has given up meanwhile
                continue
            if opinion is None:
                each.opinion.set_exception(RequestError(500, "model-failed", "the model failed; its log says where"))
            else:
                each.opinion.set_result(opinion)

    def _opinions(self, batch: list[_Waiting]) -> list[Opinion]:
        return opinions(self._model.predict([each.image for each in batch], [each.facts for each in batch]))

    def _learn(self, images: int, seconds: float) -> None:
        own = seconds / images
        self.seconds = own if self.seconds == 0 else self.seconds + _NEWEST * (own - self.seconds)
        self._watch(images, seconds)


def _place(error: BaseException) -> str:
    """An error's kind and place, without its message: that could hold facts about a patient."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__} at {' > '.join(frames[-3:])}"
