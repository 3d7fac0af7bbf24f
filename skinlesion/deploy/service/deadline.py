"""How long a request may take, and what is said when it takes longer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from skinlesion.deploy.service.problems import RequestError, busy


class Deadline:
    """The time that one request has, from now on.

    Args:
        seconds: For upload and model together.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = asyncio.get_running_loop().time() + seconds

    @asynccontextmanager
    async def with_client(self) -> AsyncIterator[None]:
        """Wait for what the client sends.

        Raises:
            RequestError: 408.
        """
        late = RequestError(408, "slow-upload", f"the request did not arrive within {self._seconds:g} s; send it again")
        async with self._until_deadline(late):
            yield

    @asynccontextmanager
    async def with_model(self) -> AsyncIterator[None]:
        """Wait for the model.

        Raises:
            RequestError: 503.
        """
        async with self._until_deadline(busy(f"there was no answer within {self._seconds:g} s", self._seconds / 4)):
            yield

    @asynccontextmanager
    async def _until_deadline(self, late: RequestError) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout_at(self._deadline):
                yield
        except TimeoutError:
            raise late from None
