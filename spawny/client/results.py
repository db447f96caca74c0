"""What comes of an answer: the value that it holds, or a proxy in its place, or an exception.

The one rule: a result that does not load here costs neither the connection nor a second call.
"""

from __future__ import annotations

import pickle
from contextlib import suppress

from .. import errors
from ..errors import DaemonDied
from ..kernel import buffers, wire
from .channel import ChannelClosed
from .failures import is_ours, remote_exception
from .log import log
from .serialize import ResultUnpickler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .channel import Channel
    from .references import Run
    from .session import Session

# A value that was loaded here is let go by the daemon with the next request anyway; a larger one is
# not kept waiting for that.
HELD_LIMIT_BYTES = 64 * 1024


class AnswerUnusable(Exception):
    """An error to raise after the channel was given back."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class NotRun(Exception):
    """The daemon ends, and has not begun the request that it answers so."""

    def __init__(self, body: bytes, flags: int) -> None:
        self.message: str = pickle.loads(body)[3]
        self.comes_back = bool(flags & wire.COMES_BACK)

    @property
    def reason(self) -> str:
        """What a session says of itself from now on."""
        return f"is gone: {self.message}"


def value_of(session: Session, channel: Channel, body: bytes, flags: int, nested: int = 0) -> Any:
    """The value; what of it does not load here, by reference, without a second call."""
    number = channel.number
    try:
        value = pickle.loads(body) if not flags else load(session, body, flags)
    except Exception as error:  # noqa: BLE001 (loading runs the classes' own code)
        return _unloaded(session, error, channel, number, body, flags, nested)
    if flags & wire.IS_HELD and (flags & wire.WITH_BUFFERS or len(body) > HELD_LIMIT_BYTES):
        with suppress(OSError):  # the daemon is gone, as the next request will find
            channel.sock.sendall(wire.frame(wire.RELEASE, pickle.dumps([], 2)))
    return value


def _unloaded(
    session: Session,
    error: Exception,
    channel: Channel,
    number: int,
    body: bytes,
    flags: int,
    nested: int,
) -> Any:
    """What there is in place of the value that answered this request, and did not load."""
    if not flags:
        with suppress(Exception):
            return load(session, body, flags)  # which finds what other versions name
    if not flags & wire.IS_HELD:  # a copy that was asked for, as a rule
        text = f"what was copied from daemon {session.name!r} does not load here: {error}"
        raise AnswerUnusable(errors.SerializationError(text)) from error
    if flags & (wire.WITH_BUFFERS | wire.LOST) and isinstance(error, (OSError, MemoryError)):
        # Of the class it would load: a proxy in its place would be a surprise.
        proxy = held(session, channel, number, nested | wire.KEEP)
        text = (
            f"there is no room here for a result of daemon {session.name!r}: {error}. It stays"
            " there, and the attribute `proxy` of this exception is a proxy of it"
        )
        unusable = errors.SerializationError(text)
        unusable.proxy = proxy
        raise AnswerUnusable(unusable) from error
    log("debug", "a result of daemon %r stays there: %s", session.name, error)
    return held(session, channel, number, nested)


def load(session: Session, body: bytes | memoryview, flags: int) -> Any:
    """What a VALUE holds; raises whatever its loading does."""
    if flags & wire.LOST:
        raise MemoryError("it is larger than the memory that is free")
    large: Sequence[Any] = ()
    if flags & wire.WITH_BUFFERS:
        body, large = session.unpack(body)
    if flags & wire.WITH_REFERENCES:
        return ResultUnpickler(body, session, large).load()
    if flags & wire.WITH_BUFFERS:
        return buffers.Unpickler(body, large).load()
    return buffers.loads(body)


def held(session: Session, channel: Channel, number: int, request_flags: int = 0) -> Any:
    """What answered this request, and did not load here: its elements that do, and references
    to the others; a reference to it, where it has none, and with the flag KEEP."""
    answer, flags, body = channel.exchange(wire.HELD, pickle.dumps((number,), 2), request_flags)
    if answer == wire.VALUE:
        return value_of(session, channel, body, flags, request_flags & wire.NESTED)
    if answer == wire.REFERENCE:
        return session.proxy(*pickle.loads(body))
    if flags & wire.NOT_RUN:
        raise ChannelClosed  # it has ended, and with it what it held
    raise AnswerUnusable(exception_of(session, body, channel.run))


def exception_of(session: Session, body: bytes, run: Run | None = None) -> BaseException:
    """The exception of an ERROR frame from this run: its real class where that loads here."""
    failure = pickle.loads(body)
    error = remote_exception(failure)
    # Said by the daemon of itself, not by user code of another.
    if type(error) is DaemonDied and is_ours(failure):
        session.ended(f"is gone: {error}", run, may_come_back=True)
    return error
