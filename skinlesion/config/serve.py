"""The schema of `skinlesion serve`."""

from dataclasses import dataclass

from skinlesion.config.checks import require


@dataclass
class LimitsConfig:
    """Limits of the service; whatever exceeds one is refused with a 4xx or 503 that says so."""

    images: int  # images in one request
    image_mib: float  # size of one image file, MiB
    request_mib: float  # size of a whole request, MiB
    megapixels: float  # size of one image, millions of pixels
    shortest_side: int  # least width and height of an image, pixels
    waiting: int  # images admitted and not yet answered, over all requests
    batch: int  # images that the model predicts at once
    timeout: float  # time to answer a request, upload included, seconds
    explain_seconds: float  # time for an explanation, at most half of timeout, seconds; more gives a finer grid

    def __post_init__(self) -> None:
        for key in ("images", "shortest_side", "waiting", "batch"):
            require(getattr(self, key) >= 1, f"limits.{key}", getattr(self, key), "1 or more")
        for key in ("image_mib", "request_mib", "megapixels", "timeout", "explain_seconds"):
            require(getattr(self, key) > 0, f"limits.{key}", getattr(self, key), "more than 0")
        longest = self.timeout / 2  # predictions take every second turn
        require(self.explain_seconds <= longest, "limits.explain_seconds", self.explain_seconds, f"{longest:g} or less")
        for large, small in (("waiting", "images"), ("request_mib", "image_mib")):
            least = getattr(self, small)
            expected = f"limits.{small}={least:g} or more"
            require(getattr(self, large) >= least, f"limits.{large}", getattr(self, large), expected)


@dataclass
class ServeConfig:
    """`skinlesion serve`."""

    bundle: str  # folder that `skinlesion export` wrote
    host: str  # address to listen on; 127.0.0.1: only this machine; 0.0.0.0: all its networks
    port: int  # port to listen on, 0 to 65535; 0: any free one
    threads: int | None  # threads of the model, 1 or more; null: one for each core
    limits: LimitsConfig

    def __post_init__(self) -> None:
        require(0 <= self.port <= 65535, "port", self.port, "0 to 65535")
        require(self.threads is None or self.threads >= 1, "threads", self.threads, "1 or more, or null")
