"""The schema of `skinlesion serve`."""

from dataclasses import dataclass

from skinlesion.config.checks import require


@dataclass
class LimitsConfig:
    """What the service takes on; more is refused with a 4xx or 503 that says so."""

    images: int  # in one request
    image_mib: float  # bytes of one image file, 2**20
    request_mib: float  # bytes of a whole request, 2**20
    megapixels: float  # of one image, 10**6
    shortest_side: int  # of one image, pixels
    waiting: int  # images accepted and not yet answered, of all requests
    batch: int  # images that the model judges at once
    timeout: float  # seconds in which a request is answered, its upload included
    explain_seconds: float  # a map's grid is as fine as this time allows

    def __post_init__(self) -> None:
        for key in ("images", "shortest_side", "waiting", "batch"):
            require(getattr(self, key) >= 1, f"limits.{key}", getattr(self, key), "1 or more")
        for key in ("image_mib", "request_mib", "megapixels", "timeout", "explain_seconds"):
            require(getattr(self, key) > 0, f"limits.{key}", getattr(self, key), "more than 0")
        most = self.timeout / 2  # predictions take every second turn
        require(self.explain_seconds <= most, "limits.explain_seconds", self.explain_seconds, f"{most:g} or less")
        require(self.waiting >= self.images, "limits.waiting", self.waiting, f"limits.images={self.images} or more")
        require(
            self.request_mib >= self.image_mib,
            "limits.request_mib",
            self.request_mib,
            f"limits.image_mib={self.image_mib:g} or more",
        )


@dataclass
class ServeConfig:
    """`skinlesion serve`."""

    bundle: str  # a folder that `export` wrote
    host: str  # address to listen on; 127.0.0.1: this machine alone
    port: int  # 0: a free one
    threads: int | None  # of the model; null: the cores that the process may use
    limits: LimitsConfig

    def __post_init__(self) -> None:
        require(0 <= self.port <= 65535, "port", self.port, "0 to 65535")
        require(self.threads is None or self.threads >= 1, "threads", self.threads, "1 or more, or null")
