"""Both clients under one face, so that each test holds for both."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from barprop_client import AsyncClient, Client

KINDS = ("sync", "async")


class Awaited:
    """An AsyncClient whose calls are awaited and whose iterators are walked on a loop of its own."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = AsyncClient(*given, **named)

    def __repr__(self) -> str:
        return repr(self._client)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*given: Any, **named: Any) -> Any:
            result = method(*given, **named)
            return (
                self._loop.run_until_complete(result) if asyncio.iscoroutine(result) else self._walk(result)
            )

        return call

    def _walk(self, items: Any) -> Iterator[Any]:
        try:
            while True:
                try:
                    item = self._loop.run_until_complete(anext(items))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self._loop.run_until_complete(items.aclose())

    def close(self) -> None:
        """Closes the client and its loop."""
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


def made(kind: str, *given: Any, **named: Any) -> Any:
    """A client of that kind; typed as Any, since the two differ in nothing but `await`."""
    return (Client if kind == "sync" else Awaited)(*given, **named)
