"""A TCP proxy between Tally and Redis: a network that can fail on demand."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from support.engines import free_port

_CHUNK = 65536


class Proxy:
    """Forwards connections to `port` to another port, until it is told otherwise.

    The controls may be called from any thread; each has taken effect when it returns.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.cuts = 0  # connections cut so far, by either kind of cut
        self._target = target
        self.loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._swallowing = False
        self._replies_left: int | None = None  # bytes until the connection that carries the next byte is cut
        self._open: set[asyncio.StreamWriter] = set()

    # The controls

    def go_on(self) -> None:
        """Forward again, with all held bytes. A connection that has lost bytes stays deaf."""
        self._in_loop(self._set, True, False)

    def stall(self) -> None:
        """Accept everything, forward nothing, lose nothing."""
        self._in_loop(self._set, False, False)

    def swallow(self) -> None:
        """Accept everything, and lose every byte in both directions."""
        self._in_loop(self._set, True, True)

    def cut(self) -> None:
        """Close all connections at once, with bytes still on their way."""
        self._in_loop(self._cut_all)

    def lead_to(self, target: int) -> None:
        """Connect new clients to another port; open connections stay."""
        self._in_loop(setattr, self, "_target", target)

    def cut_after(self, size: int) -> None:
        """Let `size` more bytes of replies through, then close the connection that carried the last."""
        self._in_loop(setattr, self, "_replies_left", size)

    # The inside, all of it in the loop's thread

    def _set(self, flowing: bool, swallowing: bool) -> None:
        self._swallowing = swallowing
        if flowing:
            self._flowing.set()
        else:
            self._flowing.clear()

    def _cut_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        self.cuts += len(self._open) // 2

    async def _connected(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            to_client.transport.abort()
            return
        ends = {to_client, to_server}
        self._open |= ends
        try:
            async with asyncio.TaskGroup() as both:
                for source, to, let in (
                    (client, to_server, self._let_through),
                    (server, to_client, self._let_reply),
                ):
                    both.create_task(self._pump(source, to, let, ends))
        finally:
            self._open -= ends

    async def _pump(
        self,
        source: asyncio.StreamReader,
        to: asyncio.StreamWriter,
        let: Callable[[bytes], bytes],
        ends: set[asyncio.StreamWriter],
    ) -> None:
        deaf = False
        try:
            while data := await source.read(_CHUNK):
                await self._flowing.wait()
                deaf = deaf or self._swallowing
                if deaf:
                    continue
                through = let(data)
                to.write(through)
                await to.drain()
                if len(through) < len(data):
                    break
        except OSError:
            pass  # one side has closed; close the other, too
        for end in ends:
            end.close()

    def _let_through(self, data: bytes) -> bytes:
        return data

    def _let_reply(self, data: bytes) -> bytes:
        if self._replies_left is None or len(data) <= self._replies_left:
            if self._replies_left is not None:
                self._replies_left -= len(data)
            return data
        through, self._replies_left = data[: self._replies_left], None
        self.cuts += 1
        return through

    def _in_loop(self, control: Callable[..., Any], *arguments: Any) -> None:
        async def call() -> None:
            control(*arguments)

        self.run(call())

    # For `proxied`

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in the loop's thread, to its end."""
        asyncio.run_coroutine_threadsafe(work, self.loop).result(5)

    async def listen(self) -> None:
        """Begin to accept."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    async def end(self) -> None:
        """Accept no more, and cut what is there."""
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@contextmanager
def proxied(target: int) -> Iterator[Proxy]:
    """A proxy to a port of this machine, for as long as the context lasts."""
    proxy = Proxy(target)
    thread = threading.Thread(target=proxy.loop.run_forever)
    thread.start()
    try:
        proxy.run(proxy.listen())
        yield proxy
        proxy.run(proxy.end())
    finally:
        proxy.loop.call_soon_threadsafe(proxy.loop.stop)
        thread.join()
        proxy.loop.close()
