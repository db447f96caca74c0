"""Awaiting what others call: daemons in a program of asyncio, public as `spawny.aio`.

Nothing here blocks the event loop. A coroutine function in a daemon runs there as a task of the
daemon's own event loop, so thousands of calls may wait there at once; cancelling the task that
awaits it here cancels it. Other calls are made by the thread of `spawny.submit`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..kernel import wire
from . import launch, run
from .futures import CallFuture, submit_awaited, submit_request
from .proxy import ObjectProxy, checked_proxy, method_name_of, reference_of
from .streams import RemoteIterator

if TYPE_CHECKING:
    from typing import Unpack

    from .options import OnDrift, Options


async def call(callable_proxy: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Call the proxy; what it returns. A coroutine function there is awaited there.

    Cancelling this cancels it, or interrupts the call; the daemon stays usable.
    """
    proxy = checked_proxy(callable_proxy)
    return await _result(partial(submit_awaited, proxy, method_name_of(proxy), args, kwargs))


async def value(proxy: Any) -> Any:
    """As `spawny.value`."""
    if not issubclass(type(proxy), ObjectProxy):
        return proxy
    return await _in_line(proxy, lambda: run.value(proxy))


async def iterate(proxy: Any) -> AsyncIterator[Any]:
    """The items of a remote iterable, asynchronous or not, for `async for`."""
    checked_proxy(proxy)
    if hasattr(type(proxy), "__aiter__"):
        iterator = await _awaited(proxy, "__aiter__", flags=wire.KEEP)
        while True:
            try:
                yield await _awaited(iterator, "__anext__")
            except StopAsyncIteration:
                return
    iterator = await _in_line(proxy, lambda: iter(proxy))
    stream = iterator._stream if type(iterator) is RemoteIterator else None
    while True:
        if stream is not None and stream.chunk:
            yield next(iterator)  # it came in one chunk with the last
            continue
        item = await _in_line(proxy, lambda: next(iterator, _END))
        if item is _END:
            return
        yield item


_END = object()


async def attach(name: str, on_drift: OnDrift = "warn") -> ObjectProxy:
    """As `spawny.attach`."""
    return await asyncio.to_thread(launch.attach, name, on_drift)


async def run_script(
    script_str: str,
    python_exe: str | os.PathLike[str] | None = None,
    logger: logging.Logger | None = None,
    **options: Unpack[Options],
) -> ObjectProxy:
    """As `spawny.run_script`."""
    return await asyncio.to_thread(launch.run_script, script_str, python_exe, logger, **options)


async def run_module(
    module_name: str,
    module_path: str | os.PathLike[str] | None = None,
    python_exe: str | os.PathLike[str] | None = None,
    logger: logging.Logger | None = None,
    **options: Unpack[Options],
) -> ObjectProxy:
    """As `spawny.run_module`."""
    return await asyncio.to_thread(
        launch.run_module, module_name, module_path, python_exe, logger, **options
    )


def run_object(
    object_instance_or_definition: Any,
    python_exe: str | os.PathLike[str] | None = None,
    logger: logging.Logger | None = None,
    **options: Unpack[Options],
) -> Coroutine[Any, Any, ObjectProxy]:
    """As `spawny.run_object`."""
    from ..definitions import InstanceDefinition

    definition = object_instance_or_definition
    if isinstance(definition, InstanceDefinition):
        # Not in the coroutine: only here the caller's frame is known to be the next one.
        definition = definition.resolved(sys._getframe(1).f_globals)
    return asyncio.to_thread(launch.run_object, definition, python_exe, logger, **options)


# --- special methods of proxies, see remote_type.py -----------------------------------------------


def await_proxy(proxy: ObjectProxy) -> Generator[Any, Any, Any]:
    """`__await__`: the object is awaited in its daemon."""
    return _awaited(proxy, "__await__").__await__()


async def next_item(proxy: ObjectProxy) -> Any:
    """`__anext__`."""
    return await _awaited(proxy, "__anext__")


async def enter(proxy: ObjectProxy) -> Any:
    """`__aenter__`."""
    return await _awaited(proxy, "__aenter__")


async def leave(proxy: ObjectProxy, kind: Any, error: BaseException | None, trace: Any) -> Any:
    """`__aexit__`."""
    if error is None and kind is not None:
        error = kind()
    return await _awaited(proxy, "__aexit__", error)


async def _awaited(proxy: ObjectProxy, name: str, *args: Any, flags: int = 0) -> Any:
    return await _result(partial(submit_awaited, proxy, name, args, {}, flags))


async def _in_line(proxy: ObjectProxy, make: Callable[[], Any]) -> Any:
    """What `make()` returns, which makes requests to the daemon of this proxy."""
    return await _result(partial(submit_request, reference_of(proxy).session, make))


async def _result(submit: Callable[..., CallFuture]) -> Any:
    """The result of what is submitted, by a function that takes `on_over`."""
    loop = asyncio.get_running_loop()
    news = _news.get(loop)
    if news is None:
        news = _news[loop] = _News()
    is_over = loop.create_future()
    future = submit(on_over=partial(news.put, is_over))
    try:
        await is_over
    except asyncio.CancelledError:
        future.cancel()
        raise
    return future.result()


class _News:
    """What is over of what one event loop awaits. Results come many at once: waking the loop for
    each would take longer than the calls."""

    def __init__(self) -> None:
        self._over: deque[asyncio.Future[None]] = deque()
        self._is_told = False

    def put(self, is_over: asyncio.Future[None]) -> None:
        """On any thread."""
        self._over.append(is_over)
        if not self._is_told:
            self._is_told = True
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                is_over.get_loop().call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._is_told = False  # first: what is put from now on may come too late for this turn
        while self._over:
            is_over = self._over.popleft()
            if not is_over.done():  # it may have been cancelled
                is_over.set_result(None)


_news: WeakKeyDictionary[asyncio.AbstractEventLoop, _News] = WeakKeyDictionary()
