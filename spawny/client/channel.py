"""One connection to a daemon: a request out, its answer back, with no thread and no queue between.

The hot path is one send and one receive. After sending, a bounded number of non-blocking reads are
tried before the blocking one: an answer that takes a few microseconds is then there without this
process having slept.
"""

from __future__ import annotations

import codecs
import itertools
import os
import pickle
import select
import socket
import struct
import sys
import time
from collections import deque
from contextlib import contextmanager, suppress
from functools import partial

from ..errors import UnsafePath
from ..kernel import wire
from ..kernel.buffers import Parts, join
from ..kernel.sessions import PIECE_BYTES, peer_uid
from ..kernel.spin import READ_BYTES, Spin
from .interrupt import PassingInterrupts, is_ours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from .references import Run
    from .scope import Scope
    from .session import Session

# An errand is answered by the daemon's control thread, which is idle but for C code that keeps the
# GIL; past this time it is given up.
ERRAND_SECONDS = 2.0

# An interrupted call gets so long to end: for its `finally` blocks, and for C code to come back.
GRACE_SECONDS = 1.0
# The timeout of a socket when the time is over: zero would mean not to wait, and raise otherwise.
LEAST_SECONDS = 1e-6

# So much of pipelined requests is on its way at once: what a socket's buffer takes in any case.
WINDOW_BYTES = 64 * 1024
WINDOW_REQUESTS = 256
# Below this there is room for more; with half of it on its way the daemon does not run dry.
LOW_BYTES = WINDOW_BYTES // 2
LOW_REQUESTS = WINDOW_REQUESTS // 2

Frame = tuple[int, int, bytes]
Request = tuple[int, "bytes | Parts", int]  # kind, body, flags


class ChannelClosed(ConnectionError):
    """The daemon closed the connection, or sends what makes no sense.

    `is_sent` is false where it has not taken all of the request, which then never runs;
    `is_untouched` where it has taken nothing of what was sent at once.
    """

    def __init__(self, is_sent: bool = True, is_untouched: bool = False) -> None:
        super().__init__("the daemon closed the connection")
        self.is_sent = is_sent
        self.is_untouched = is_untouched


class Overdue(Exception):
    """A request's scope was over before its answer came; `how` it stands with the request."""

    NOT_SENT, WITHDRAWN, INTERRUPTED, RUNS_ON = "not sent", "withdrawn", "interrupted", "runs on"

    def __init__(self, how: str) -> None:
        self.how = how


def open_socket(path: str, timeout: float | None = None) -> socket.socket:
    """A stream to the daemon at this path; raises OSError where none listens."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _connect(sock, path, timeout)
        check_peer(sock, path)
        sock.settimeout(timeout)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect(sock: socket.socket, path: str, timeout: float | None) -> None:
    # Not by settimeout: where the listener's queue is full, a non-blocking connect of a unix socket
    # fails at once, and nothing tells when to try again. A blocking one waits its turn.
    if timeout is not None:
        _set_send_timeout(sock, timeout)
    try:
        sock.connect(path)
    except BlockingIOError:
        raise TimeoutError("timed out") from None
    if timeout is not None:
        _set_send_timeout(sock, 0.0)


def _set_send_timeout(sock: socket.socket, seconds: float) -> None:
    timeval = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)


def check_peer(sock: socket.socket, path: str) -> None:
    """Raise `UnsafePath` unless the process at the other end is this user's."""
    uid = peer_uid(sock)
    if uid not in (None, os.getuid()):
        raise UnsafePath(f"refusing to talk to {path}: uid {uid} serves it")


class Channel:
    """A call connection. It carries one request at a time; the session lends it out."""

    __slots__ = (
        "__weakref__",
        "_decoders",
        "_path",
        "_poller",
        "_reader",
        "_session",
        "_spinning",
        "_waiting",
        "carries_oneways",
        "connection_id",
        "is_in_step",
        "number",
        "run",
        "sock",
    )

    def __init__(
        self,
        path: str,
        timeout: float | None = None,
        session: Session | None = None,
    ) -> None:
        self._path = path
        self._session = session
        self.sock = open_socket(path, timeout)
        self.connection_id = 0
        self.run: Run | None = None  # of the daemon at the other end, once it greeted
        self.number = 0  # of requests sent, as the daemon counts them
        # Has what a callback sent on it been answered? Else the call around that must not go on.
        self.is_in_step = True
        self.carries_oneways = False  # that nothing behind them was answered yet
        self._reader = wire.FrameReader()
        self._spinning = Spin(self.sock)
        self._poller = select.poll()
        self._poller.register(self.sock, select.POLLIN)
        self._waiting: deque[Frame] = deque()
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}

    def close(self) -> None:
        self.sock.close()

    def exchange(
        self,
        kind: int,
        body: bytes | Parts,
        flags: int,
        before: bytes = b"",
        scope: Scope | None = None,
    ) -> Frame:
        """Send a request (after the frames `before`) and give its answer, output shown and
        callbacks run meanwhile.

        Raises `ChannelClosed`, and `Overdue` where the scope ends the wait; after any exception the
        channel is of no more use.
        """
        number = self.number = self.number + 1
        data = before + wire.HEADER.pack(len(body), kind, flags, 0) + body
        if scope is not None:
            return self._exchange_within(scope, number, lambda: self.send_within(scope, data))
        self.send(data)
        return self._spin() or self._wait(number)

    def _exchange_within(
        self, scope: Scope, number: int, send: Callable[[], None], is_sent: bool = False
    ) -> Frame:
        try:
            if not scope.begin(self, number) or scope.remaining() == 0:
                if not is_sent:
                    raise Overdue(Overdue.NOT_SENT)
                is_withdrawn = self.interrupt(number) == "withdrawn"
                raise Overdue(Overdue.WITHDRAWN if is_withdrawn else Overdue.INTERRUPTED)
            send()
            # Not with a timeout: then a socket waits even if told not to.
            return self._waiting_answer() or self._spin() or self._wait(number, scope)
        finally:
            scope.end(self, number)

    @contextmanager
    def _limited(self, scope: Scope) -> Iterator[None]:
        """The socket waits no longer than the scope lasts."""
        remaining = scope.remaining()
        if remaining is None:
            yield
            return
        self.sock.settimeout(max(LEAST_SECONDS, remaining))
        try:
            yield
        finally:
            if self.sock.fileno() >= 0:
                self.sock.settimeout(None)

    def pipeline(
        self, requests: Iterator[Request], scope: Scope | None = None
    ) -> Iterator[tuple[int, Frame]]:
        """Send requests without waiting for each one's answer; (number, answer) of each, in order.
        Each is taken from `requests` when it is to be sent.

        Raises as `exchange` does.
        """
        sizes: deque[int] = deque()
        pending = taken = 0
        following = next(requests, None)
        untouched = sys.maxsize  # the first of those that the daemon surely has nothing of
        for index in itertools.count():
            first, data = taken, []
            # Many at once: each send wakes the daemon, and takes as long as all else for a request.
            if following and len(sizes) <= LOW_REQUESTS and pending <= LOW_BYTES:
                while following:
                    kind, body, flags = following
                    size = len(body)
                    # What is on its way fits the system's buffers, so that neither end waits for
                    # the other to read; one that is larger goes alone.
                    is_full = pending + size > WINDOW_BYTES or len(sizes) == WINDOW_REQUESTS
                    if sizes and is_full:
                        break
                    data.append(wire.HEADER.pack(size, kind, flags, 0) + body)
                    sizes.append(size)
                    pending += size
                    following = next(requests, None)
                taken += len(data)
            if not sizes:
                return
            # Counted as the daemon does: in the order in which they begin, and a callback of one
            # may make others before the next.
            number = self.number = self.number + 1
            try:
                if scope is None:
                    if data:
                        untouched = min(untouched, self._offer(first, data))
                    frame = self._waiting_answer() or self._spin() or self._wait(number)
                else:
                    offered = [untouched]

                    send = partial(self._offer_within, offered, first, data, scope)
                    try:
                        frame = self._exchange_within(scope, number, send, first > index)
                    finally:
                        untouched = min(offered)
            except ChannelClosed as closed:
                closed.is_sent = index < untouched
                raise
            yield number, frame
            pending -= sizes.popleft()

    def _offer(self, first: int, data: list[bytes | Parts], scope: Scope | None = None) -> int:
        """Send the frames of requests from `first` on, if there are any; the first that the daemon
        surely has not got whole. It may take no more, and have answered those before all the same.
        """
        try:
            if data:
                self.send_within(scope, join(data))
        except ChannelClosed as closed:
            if closed.is_untouched or len(data) == 1:
                return first
        return sys.maxsize

    def _offer_within(
        self, offered: list[int], first: int, data: list[bytes | Parts], scope: Scope
    ) -> None:
        offered.append(self._offer(first, data, scope))

    def _waiting_answer(self) -> Frame | None:
        """The answer, if it has come with the one before."""
        if self._waiting and self._waiting[0][0] <= wire.ERROR:
            return self._waiting.popleft()
        return None

    def send(self, data: bytes | Parts) -> None:
        """Send whole frames; raises `ChannelClosed`."""
        sock, sent = self.sock, 0
        try:
            if type(data) is Parts:
                data.goes_over(self)
                for piece in data.pieces:
                    sock.sendall(piece)
                    sent = 1
                return
            sent = sock.send(data)  # type: ignore[arg-type]  # bytes
            if sent < len(data):
                sock.sendall(memoryview(data)[sent:])  # type: ignore[arg-type]
        except OSError as error:
            raise _reason(error, is_sent=False, is_untouched=sent == 0) from error

    def send_within(self, scope: Scope | None, data: bytes | Parts) -> None:
        """The same, but raises `Overdue` where the scope ends before all of it was taken."""
        if scope is None:
            self.send(data)
            return
        sent = 0
        if type(data) is bytes:  # as a rule all of it is taken, and no timeout need be set
            try:
                sent = self.sock.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass
            except OSError as error:
                raise _reason(error, is_sent=False, is_untouched=True) from error
            if sent == len(data):
                return
            data = data[sent:]
        with self._limited(scope):
            try:
                self.send(data)
            except TimeoutError:
                raise Overdue(Overdue.NOT_SENT) from None  # not all of it: it will not begin
            except ChannelClosed as closed:
                closed.is_untouched = closed.is_untouched and not sent
                raise

    def _spin(self) -> Frame | None:
        """The answer, if it is a matter of microseconds."""
        if self._waiting:
            return None  # output or a callback comes first
        try:
            data = self._spinning.receive()
        except OSError as error:
            raise _reason(error) from error
        if data is None:
            return None
        frames = self._feed(data)
        if len(frames) == 1 and frames[0][0] <= wire.ERROR:
            return frames[0]
        self._waiting.extend(frames)
        return self._waiting_answer()

    def _wait(self, number: int, scope: Scope | None = None) -> Frame:
        """The answer, as `answer` gives it, however long it takes; as a rule it comes whole.

        Nothing is received while Ctrl-C may raise: so no handler is needed yet, which takes longer
        to set and to take back than all else in a call.
        """
        is_interrupted = False
        if not self._waiting and self._reader.wanted() is None:
            remaining = None if scope is None else scope.remaining()
            try:
                has_come = self._poller.poll(
                    None if remaining is None else _milliseconds(remaining)
                )
            except KeyboardInterrupt:
                if not is_ours():
                    raise
                has_come, is_interrupted = [], True
            if has_come:
                frames = self._receive()
                if len(frames) == 1 and frames[0][0] <= wire.ERROR:
                    return frames[0]
                self._waiting.extend(frames)
        if scope is None:
            return self.answer(number, is_interrupted=is_interrupted)
        with self._limited(scope):
            return self.answer(number, scope, is_interrupted)

    def answer(
        self, number: int, scope: Scope | None = None, is_interrupted: bool = False
    ) -> Frame:
        """The answer to the oldest request that has none yet, which was sent under this number."""
        is_overdue = False
        while True:
            try:
                with PassingInterrupts(lambda: self._pass_on(number), is_interrupted):
                    is_interrupted = False
                    frame = self.next_frame()
            except TimeoutError:
                if scope is None:
                    raise
                if is_overdue:
                    raise Overdue(Overdue.RUNS_ON) from None
                is_overdue = True
                if self.interrupt(number) == "withdrawn":
                    raise Overdue(Overdue.WITHDRAWN) from None
                self.sock.settimeout(GRACE_SECONDS)
                continue
            if frame[0] != wire.CALLBACK:
                return frame
            self.sock.settimeout(None)
            assert self._session is not None
            self._session.serve_callback(self, frame[1], frame[2])
            if scope is not None:
                remaining = scope.remaining()
                if remaining is not None:
                    remaining = max(LEAST_SECONDS, remaining)
                self.sock.settimeout(GRACE_SECONDS if is_overdue else remaining)

    def _pass_on(self, number: int) -> bool:
        """Ctrl-C: interrupt this request. One that has not begun is given up at once."""
        state = self.interrupt(number)
        if state == "withdrawn":
            raise KeyboardInterrupt
        return bool(state)

    def interrupt(self, number: int | None = None) -> str:
        """Raise KeyboardInterrupt in a request, by default the one sent last: "interrupted";
        "withdrawn" where it had not begun, and will not; "" when it was over already."""
        try:
            number = self.number if number is None else number
            return str(errand(self._path, wire.INTERRUPT, self.connection_id, number))
        except OSError:
            return ""  # the daemon is gone, as the next receive will tell

    def hang_up(self) -> None:
        """End the wait of another thread; what it waits for has been withdrawn."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def next_frame(self) -> Frame:
        """The next frame that is not output; waits for it as long as the socket's timeout."""
        while True:
            while self._waiting:
                frame = self._waiting.popleft()
                if frame[0] == wire.OUTPUT:
                    self.show(frame[1], frame[2])
                elif frame[0] == wire.SEGMENTS:
                    assert self._session is not None
                    self._session.heard(frame[2])
                else:
                    return frame
            self._waiting.extend(self._receive())

    def _receive(self) -> list[Frame]:
        view = self._reader.wanted()
        try:
            if view is None:
                return self._feed(self.sock.recv(READ_BYTES))
            count = self.sock.recv_into(view[:PIECE_BYTES])
        except OSError as error:
            raise _reason(error) from error
        if not count:
            raise ChannelClosed
        frames: list[Frame] = self._reader.filled(count)
        return frames

    def _feed(self, data: bytes) -> list[Frame]:
        if not data:
            raise ChannelClosed
        try:
            frames: list[Frame] = self._reader.feed(data)
        except (wire.WireError, MemoryError) as error:
            raise ChannelClosed from error
        return frames

    def show(self, stream: int, data: bytes) -> None:
        """Print what the daemon's code printed, here."""
        decoder = self._decoders.get(stream)
        if decoder is None:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            self._decoders[stream] = decoder
        show(stream, decoder.decode(data))


def show(stream: int, text: str) -> None:
    """Write the text to this process's stdout (1) or stderr (2), as well as that goes.

    Never fails: what a daemon prints is no reason for a call to fail here, and its log has it.
    """
    target = sys.stderr if stream == 2 else sys.stdout
    with suppress(OSError, ValueError, AttributeError):  # closed, or none
        try:
            target.write(text)
        except UnicodeEncodeError:
            encoding = target.encoding or "ascii"
            target.write(text.encode(encoding, "backslashreplace").decode(encoding))
        target.flush()


def _milliseconds(seconds: float) -> int:
    """For poll, which would raise for a month."""
    return min(int(seconds * 1000) + 1, 1 << 30)


def _reason(error: OSError, is_sent: bool = True, is_untouched: bool = False) -> OSError:
    """The error to raise for one that came out of a system call: a closed channel, as a rule.

    One without a number is the socket's own timeout, or comes from a signal handler of the
    application that raises such errors; those pass as they are.
    """
    return ChannelClosed(is_sent, is_untouched) if error.errno is not None else error


def errand(
    path: str,
    kind: int,
    *fields: Any,
    timeout: float = ERRAND_SECONDS,
    descriptors: Sequence[int] = (),
) -> Any:
    """Have the daemon's control thread do something at once, with descriptors perhaps; its answer.

    Raises OSError where no daemon listens, or it does not answer within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    with open_socket(path, timeout) as sock:
        frame = wire.frame(kind, pickle.dumps(fields, 2))
        if descriptors:
            socket.send_fds(sock, [frame], descriptors)
        else:
            sock.sendall(frame)
        return _acknowledged(sock, deadline)[0]


def errand_for_descriptor(path: str, kind: int, *fields: Any) -> tuple[Any, int | None]:
    """The same for an errand that is answered with a descriptor, too; None where there is no room
    for one in this process."""
    deadline = time.monotonic() + ERRAND_SECONDS
    with open_socket(path, ERRAND_SECONDS) as sock:
        sock.sendall(wire.frame(kind, pickle.dumps(fields, 2)))
        answer, descriptors = _acknowledged(sock, deadline)
    return answer, descriptors[0] if descriptors else None


def _acknowledged(sock: socket.socket, deadline: float) -> tuple[Any, list[int]]:
    reader = wire.FrameReader()
    descriptors: list[int] = []
    while True:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        data, came, _, _ = socket.recv_fds(sock, 4096, 1)
        descriptors += came
        if not data:
            raise ChannelClosed()
        for answer, _, body in reader.feed(data):
            if answer == wire.ACK:
                return pickle.loads(body), descriptors
