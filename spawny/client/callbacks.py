"""Functions that stay here and are called from a daemon.

A callback that a call there makes is run by the thread that waits for this very call, and may
itself call the daemon: its calls travel on the same connection, marked as nested. One that the
daemon makes between calls (a thread of its own, another client's call) gets a thread of its own.
"""

from __future__ import annotations

import itertools
import threading
from contextlib import suppress
from types import BuiltinMethodType, MethodType

from ..errors import CallCancelled, InvalidRequest
from ..kernel import wire
from ..kernel.buffers import Parts
from .channel import ChannelClosed
from .failures import describe_exception
from .interrupt import as_the_program
from .results import load
from .serialize import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .channel import Channel
    from .session import Session

# A bound method is made anew each time that it is asked for.
_METHODS = (MethodType, BuiltinMethodType)


class Callback:
    """A function that runs here wherever it is called from; made by `spawny.callback`."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"callback({self.function!r})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a callback stays in its process; it can be an argument of a remote call")


def callback(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function that is passed to a daemon, so that it is called here.

    There it is an ordinary callable. Its arguments come by value where they can be copied, else as
    proxies; its result goes by value; an exception it raises is raised there. It may call the
    daemon again. It can be called as long as a proxy of that daemon is alive here.
    """
    if not callable(function):
        raise InvalidRequest(f"a callback is a function, not {type(function).__name__}")
    return function if type(function) is Callback else Callback(function)


class Callbacks:
    """The functions that one session has passed to its daemon and that are in use there."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.RLock()  # a finalizer that comes in the middle may send some, too
        self._by_id: dict[int, _Entry] = {}
        self._ids: dict[Any, int] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._by_id)

    def send(self, callback: Callback) -> tuple[int, str]:
        """(number, name) for the daemon: the same for the same function, as long as it uses one."""
        function = callback.function
        # Of other callables code would decide whether they are equal; a proxy's is in a daemon.
        key = function if type(function) in _METHODS else id(function)
        known = self._count(function, key) if self._by_id else None
        if known is None:
            with self._session.quiet:
                known = self._count(function, key, is_first=True)
            assert known is not None
        return known

    def _count(
        self, function: Callable[..., Any], key: Any, is_first: bool = False
    ) -> tuple[int, str] | None:
        """The function, sent once more; None where it turns out to be the first."""
        with self._lock:
            if not (self._by_id or is_first):
                return None
            known = self._ids.get(key)
            if known is None:
                known = next(self._numbers)
                self._by_id[known] = _Entry(function, key)
                self._ids[key] = known
            entry = self._by_id[known]
            entry.count += 1
            return known, entry.name

    def dropped(self, counts: Iterable[tuple[int, int]]) -> None:
        """The daemon has let go of so many of those that were sent to it."""
        gone = []  # what goes with them goes outside of the lock
        with self._lock:
            for number, count in counts:
                entry = self._by_id.get(number)
                if entry is None:
                    continue
                entry.count -= count
                if entry.count <= 0:
                    gone.append(self._by_id.pop(number))
                    self._ids.pop(entry.key, None)

    def serve(self, channel: Channel, flags: int, body: bytes) -> None:
        """Run the callback that the call under way on this channel makes, and send its result."""
        nested = self._session.nested
        ident = threading.get_ident()
        outer = nested.get(ident)
        nested[ident] = channel
        line = self._session.line
        was_in_step, channel.is_in_step = channel.is_in_step, True
        try:
            if line is None:
                reply, error = self._run(flags, body)
            else:
                with line.in_callback():  # its code may wait for what was submitted
                    reply, error = self._run(flags, body)
        finally:
            if outer is None:
                del nested[ident]
            else:
                nested[ident] = outer
            is_in_step, channel.is_in_step = channel.is_in_step, was_in_step
        if not is_in_step:
            # A call that it made was given up, and the one that waits for it with that.
            raise error or CallCancelled(
                f"a call in daemon {self._session.name!r} was given up, since one that its callback"
                " made did not end when it was interrupted"
            )
        try:
            channel.send(reply)
        except ChannelClosed as closed:
            closed.is_sent = True  # the request, that is: it runs, and waits for this
            raise

    def serve_between_calls(
        self, send: Callable[[bytes | Parts], None], flags: int, body: bytes
    ) -> None:
        """The same on a thread of its own, for a callback that no call of ours makes."""

        def run() -> None:
            reply, _ = self._run(flags, body)
            with suppress(OSError):  # the daemon is gone
                send(reply)

        with as_the_program():
            threading.Thread(target=run, name="spawny-callback", daemon=True).start()

    def _run(self, flags: int, body: bytes) -> tuple[bytes | Parts, BaseException | None]:
        """The frame that answers a CALLBACK, and what was raised, if anything."""
        number = body[: wire.NUMBER.size]
        try:
            values, (callback_id, names) = load(
                self._session, memoryview(body)[wire.NUMBER.size :], flags
            )
        except Exception as error:  # noqa: BLE001 (loading runs the classes' own code)
            if flags & wire.IS_HELD:
                return wire.frame(wire.RETURN, number, wire.UNLOADED), None
            return self._reply(wire.RAISE, number, describe_exception(error)), error
        positional = len(values) - len(names)
        kwargs = dict(zip(names, values[positional:], strict=True))
        try:
            with self._lock:
                entry = self._by_id.get(callback_id)
            if entry is None:
                raise ReferenceError("this callback was let go when its daemon was lost")
            result = entry.function(*values[:positional], **kwargs)
            return self._reply(wire.RETURN, number, result), None
        except BaseException as error:  # noqa: BLE001 (raised in the daemon)
            return self._reply(wire.RAISE, number, describe_exception(error)), error

    def _reply(self, kind: int, number: bytes, value: Any) -> bytes | Parts:
        pickled, flags = dumps(value, self._session)
        frame: bytes | Parts = wire.frame(kind, number + pickled, flags)
        return frame


class _Entry:
    __slots__ = ("count", "function", "key", "name")

    def __init__(self, function: Callable[..., Any], key: Any) -> None:
        from .proxy import ObjectProxy

        self.function = function
        self.key = key
        self.count = 0
        is_proxy = issubclass(type(function), ObjectProxy)
        self.name = "proxy" if is_proxy else str(getattr(function, "__qualname__", "callback"))
