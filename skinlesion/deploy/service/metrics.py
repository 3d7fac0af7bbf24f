"""What the service counts, for Prometheus: requests, images, waiting, refusals; never anything about a patient."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0

MEDIA_TYPE = CONTENT_TYPE_PLAIN_1_0_0

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class ServiceMetrics:
    """The counters of one service."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        own: Any = {"registry": self._registry, "namespace": "skinlesion"}
        self._bundle = Info("bundle", "The bundle that answers.", **own)
        self._requests = Counter("requests", "Answered requests.", ["method", "route", "status"], **own)
        self._seconds = Histogram("request_seconds", "From request to answer.", ["route"], buckets=_SECONDS, **own)
        self._batches = Histogram("batch_images", "Images that the model judged at once.", buckets=_IMAGES, **own)
        self._model_seconds = Counter("model_seconds", "Time that the model took.", **own)
        self._novel = Counter("out_of_distribution_images", "Images that do not look like dermoscopy.", **own)
        self._waiting = Gauge("waiting_images", "Images accepted and not yet answered.", **own)

    def names_bundle(self, version: str, precision: str) -> None:
        """Say which bundle answers."""
        self._bundle.info({"version": version, "precision": precision})

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request; `route` is a template, so that addresses made up by a client add no series."""
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, images: int, seconds: float) -> None:
        """Count a batch that the model has judged."""
        self._batches.observe(images)
        self._model_seconds.inc(seconds)

    def novel(self, images: int) -> None:
        """Count images that do not look like dermoscopy."""
        self._novel.inc(images)

    def text(self, waiting: int) -> bytes:
        """All counters in Prometheus' text format; `waiting` images have been accepted and not yet answered."""
        self._waiting.set(waiting)
        return generate_latest(self._registry)
