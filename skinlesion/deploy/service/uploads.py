"""From the bytes of an uploaded image to pixels, in memory.

The type is found by content, not by its name or declared content type. Only formats with small, well-tried decoders
are accepted: not TIFF, GIF, HEIC or DICOM. EXIF orientation turns a photograph upright, as in training; no other EXIF
is used.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import TypeVar

import numpy as np
from PIL import Image as PillowImage

from skinlesion.config.deploy import LimitsConfig
from skinlesion.data.image_formats import ImageError
from skinlesion.data.image_io import Image, decode_bytes, upright
from skinlesion.deploy.service.errors import RequestError

T = TypeVar("T")

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")

_MAX_SCANS = 64  # a progressive JPEG has about ten; thousands make a small file slow to decode
_SCAN = b"\xff\xda"  # begins a scan of a JPEG
_USUAL_SCANS = 10  # of a progressive JPEG
_LARGE = 4.0  # megapixels: larger images have a thread of their own
_SMOOTHING = 0.2  # weight of the newest decoding in the running mean, unless it was slower: then it counts in full
_STATUS = {"not-an-image": 415, "too-many-pixels": 413}  # all else: 422


def decode_upload(data: bytes, limits: LimitsConfig) -> Image:
    """Decode an upload.

    Args:
        data: The file's bytes.
        limits: Limits on bytes and pixels.

    Returns:
        RGB, upright, (h, w, 3).

    Raises:
        RequestError: It is no image, damaged, too large or small, animated, transparent, or not in 8-bit colour.
    """
    if not data:
        raise RequestError(422, "empty-image", "the image is empty (0 bytes); send the file's content")
    if len(data) > limits.image_mib * 2**20:
        raise too_many_bytes(limits)
    try:
        return decode_bytes(data, formats=FORMATS, check=lambda image: _check_header(image, data, limits))
    except ImageError as error:
        raise RequestError(_STATUS.get(error.kind, 422), error.kind, f"the image cannot be read: {error}") from None
    except RequestError:
        raise
    except Exception:  # noqa: BLE001  # Pillow raises nearly anything for damaged files
        raise RequestError(422, "damaged-image", "the image is damaged; save it again from the original") from None


@dataclass(frozen=True)
class Cost:
    """How much work it is to decode an upload, as its header says."""

    kind: str  # of the format; kinds of equal work take unequal times
    work: float  # megapixels, a quarter at least; more for a JPEG of many scans

    @property
    def is_large(self) -> bool:
        """Whether it goes to the thread of the large images."""
        return self.work > _LARGE


def cost_of(data: bytes, limits: LimitsConfig) -> Cost:
    """Read the header of an upload.

    Raises:
        RequestError: It has too many pixels or scans, or too few pixels.
    """
    try:
        with PillowImage.open(BytesIO(data), formats=FORMATS) as image:
            _check_header(image, data, limits)
            scans = data.count(_SCAN) if image.format in ("JPEG", "MPO") else 1
            work = max(0.25, image.width * image.height / 1e6) * max(1.0, scans / _USUAL_SCANS)
            return Cost("progressive JPEG" if scans > 1 else str(image.format), work)
    except RequestError:
        raise
    except Exception:  # noqa: BLE001  # Pillow raises nearly anything; decoding finds out what is wrong
        return Cost("faulty", 0.25)


class Decoder:
    """Decodes uploads in two threads, so that small ones never wait for large ones, which are decoded one at a time.

    Args:
        limits: Limits on bytes and pixels.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        self._threads: list[ThreadPoolExecutor] = []  # for small and for large images
        self._backlog: tuple[list[float], list[float]] = ([], [])  # estimated seconds of each upload, by thread
        self._slowest = 0.0  # seconds a megapixel of a kind that has not been decoded yet
        self._rates: dict[tuple[str, bool], float] = {}  # by kind and whether it is large

    def begin(self) -> None:
        """Start the threads, and find how long a megapixel takes that is as slow to decode as any."""
        self._threads = [ThreadPoolExecutor(1, f"{size}-decoder") for size in ("small", "large")]
        noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
        buffer = BytesIO()
        PillowImage.fromarray(noise).save(buffer, "JPEG", progressive=True, quality=95)
        start = time.perf_counter()
        with PillowImage.open(buffer) as image:
            upright(image)
        self._slowest = time.perf_counter() - start

    def seconds(self, cost: Cost) -> float:
        """Estimate how long decoding takes."""
        return cost.work * self._rates.get((cost.kind, cost.is_large), self._slowest)

    def waits(self, costs: Sequence[Cost]) -> tuple[float, float]:
        """Estimate the seconds until uploads are decoded, and how many of these go to other uploads before them."""
        ahead, own, backlog = 0.0, [0.0, 0.0], [sum(each) for each in self._backlog]
        for cost in costs:
            own[cost.is_large] += self.seconds(cost)
            ahead = max(ahead, backlog[cost.is_large])
        return max(b + o for b, o in zip(backlog, own, strict=True) if o), ahead

    async def cost(self, data: bytes) -> Cost:
        """As `cost_of`, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads[0], cost_of, data, self._limits)

    def start(self, data: bytes, cost: Cost, prepare: Callable[[Image], T]) -> "asyncio.Future[T]":
        """Decode an upload when its turn comes, and keep what `prepare` makes of it."""
        seconds, place = self.seconds(cost), (cost.kind, cost.is_large)

        def decode() -> T:
            start = time.perf_counter()
            prepared = prepare(decode_upload(data, self._limits))
            newest, mean = (time.perf_counter() - start) / cost.work, self._rates.get(place, 0.0)
            self._rates[place] = max(newest, mean + _SMOOTHING * (newest - mean))
            return prepared

        def finish(_: "asyncio.Future[T]") -> None:
            self._backlog[cost.is_large].remove(seconds)

        self._backlog[cost.is_large].append(seconds)
        future = asyncio.get_running_loop().run_in_executor(self._threads[cost.is_large], decode)
        future.add_done_callback(finish)
        return future

    def stop(self) -> None:
        """Drop what waits; a decoding that is under way ends by itself."""
        for thread in self._threads:
            thread.shutdown(wait=False, cancel_futures=True)


def too_many_bytes(limits: LimitsConfig) -> RequestError:
    """The refusal of a file of too many bytes."""
    detail = f"an image has more than {limits.image_mib:g} MiB; send it as a JPEG or with fewer pixels"
    return RequestError(413, "too-many-bytes", detail)


def _check_header(image: PillowImage.Image, data: bytes, limits: LimitsConfig) -> None:
    """Check an image before any pixel is decoded, so that a small file cannot ask for much memory or time."""
    width, height = image.size
    if width * height > limits.megapixels * 1e6:
        allowed = f"at most {limits.megapixels:g} million are allowed: scale it down"
        detail = f"the image has {width} x {height} pixels; {allowed}"
        raise RequestError(413, "too-many-pixels", detail)
    if min(width, height) < limits.shortest_side:
        detail = f"the image has {width} x {height} pixels; expected {limits.shortest_side} or more on each side"
        raise RequestError(422, "too-few-pixels", detail)
    if image.format in ("JPEG", "MPO") and data.count(_SCAN) > _MAX_SCANS:
        raise RequestError(
            422, "damaged-image", f"the JPEG has more than {_MAX_SCANS} scans; save it as a baseline JPEG"
        )
