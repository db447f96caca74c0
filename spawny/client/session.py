"""One client process attached to one daemon: its connections, its proxies, its lease.

The lease lasts as long as a proxy does: the session closes its connections when the last one is
collected, and the daemon drops what it held for them. It ends by itself, too, when this process is
killed, since then the system closes the connections.

Several threads may call at once: each borrows a channel from the pool for the time of its call.
"""

from __future__ import annotations

import os
import pickle
import socket
import threading

from ..errors import CallTimeout, DaemonDied, StaleReference
from ..kernel import buffers, wire
from . import background, interrupt
from .attachment import Attachment
from .channel import Channel, ChannelClosed, Overdue, open_socket
from .log import log
from .outcomes import as_told, cancelled, overdue
from .pool import Pool
from .proxy import ObjectProxy, is_lasting, reference_of
from .references import ProxyRef, References, run_of
from .results import AnswerUnusable, NotRun, exception_of, value_of
from .scope import Scope
from .scope import current as current_scope
from .serialize import dumps
from .succession import Succession

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .callbacks import Callbacks
    from .lending import Lending
    from .line import Line
    from .proxy import Reference
    from .references import Run


class Session:
    """Connected by `connect`; everything that a proxy does goes through `request`."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path
        self._attachment = Attachment(name, path)
        self.pickle_protocol = 4
        self.interpreter_tag = ""
        self.gone: str | None = None  # why it is over
        self.generation = 0  # counts requests that may have changed what inspection.py knows
        self._pool = Pool(self._new_channel)
        self.nested = self._pool.nested
        self._references = References(self)
        self._succession = Succession(self, self._attachment, self._references)
        self._events: background.Events | None = None
        self.line: Line | None = None  # of submitted calls, see line.py
        self._callbacks: Callbacks | None = None
        self._lending: Lending | None = None
        self.has_news = False  # of segments, for the daemon
        self._unread: list[bytes | memoryview] = []  # what is in segments that are to go back
        self._making_lock = threading.Lock()  # of these two
        # Held by a burst of submitted calls (see line.py), and where a daemon that has no callback
        # is to have one: that is not to be called by what the burst has sent before.
        self.quiet = threading.RLock()

    @property
    def started(self) -> dict[str, Any]:
        """What the daemon says of itself, see kernel/greeting.py."""
        return self._attachment.started

    @property
    def session_id(self) -> str:
        """By which the daemon knows this session."""
        return self._attachment.session_id

    @property
    def pid(self) -> int:
        return int(self.started["pid"])

    @property
    def run(self) -> tuple[str, int]:
        """Tells this run of the daemon from those before and after a restart."""
        return run_of(self.started)

    # --- its beginning ---

    def connect(self, timeout: float | None = None) -> Channel:
        """A new call connection, greeted but perhaps not ready; sets `started`.

        Raises OSError where nobody listens and `ChannelClosed` where the daemon ends meanwhile.
        """
        channel = self._attachment.connect(self, timeout)
        channel.run = self.run
        self.pickle_protocol = self.started["pickle_protocol"]
        version = self.started["version"]
        self.interpreter_tag = f"{self.started['implementation']}{version[0]}.{version[1]}"
        return channel

    def wait_ready(self, channel: Channel) -> ObjectProxy:
        """Wait for the definition; the root's proxy, or the definition's exception raised."""
        root = self._ready(channel)
        self._attachment.settled = self.started
        self._pool.free.append(channel)
        return self.proxy(*root)

    def _ready(self, channel: Channel) -> tuple[Any, ...]:
        root = self._attachment.ready(self, channel)
        self._pool.add(channel)
        return root

    def resume(self, channel: Channel) -> None:
        """Wait for the definition, and go on with this run, which is not the one before."""
        _, type_id, _, description = self._ready(channel)
        if description is None:  # it went to a connection that another thread has given up
            _, _, body = channel.exchange(wire.DESCRIBE, pickle.dumps((wire.ROOT,), 4), 0)
            description = pickle.loads(body)
        self._attachment.settled = self.started
        self._references.learn(type_id, description)
        before, self._events = self._events, None
        try:
            self.listen()
        except BaseException:
            self.discard(channel)
            raise
        if before is not None:
            before.leave()  # should that daemon live: it is of no more use to us
        self._pool.free.append(channel)
        self.gone = None

    def leave_unused(self, channel: Channel) -> None:
        """Let go of a session that never came to have a proxy in use."""
        self.discard(channel)
        self.close()

    def listen(self) -> None:
        """Have what happens between calls noticed: output, released proxies, the daemon's end."""
        sock = open_socket(self.path)
        sock.sendall(self._attachment.hello(wire.ROLE_EVENTS))
        self._events = background.listen(self, sock)

    # --- requests ---

    def request(
        self,
        kind: int,
        request: tuple[Any, ...],
        flags: int = 0,
        reference: Reference | None = None,
    ) -> Any:
        """One round trip: the result, or the remote exception raised here.

        Raises `DaemonDied` when the daemon ends before it answers; then nobody knows how far the
        call came, and it is never repeated. One that has surely not begun is made in the next
        daemon of this name, where it is for the root, or where that has what the `reference` is of
        by name; else the error says so. Raises `SerializationError` before anything is sent.
        """
        if self.gone is not None:
            request = self._succession.renewed(request, reference)
            self.come_back(request)
        run = self._attachment.settled
        self.generation += kind != wire.INSPECT
        scope = current_scope.get()
        if scope is not None and scope.is_over():
            raise overdue(self.name, scope, kind, as_told(request, reference), Overdue.NOT_SENT)
        body, body_flags = dumps(request, self)
        channel: Channel | None = None
        is_nested = False
        failure: BaseException | None = None
        is_over = False
        try:
            if self.nested and (channel := self._pool.nested_here()) is not None:
                is_nested = True
                channel.is_in_step = False
                flags |= wire.NESTED
            elif self._pool.oneways:
                channel = self._pool.after_oneways()
            else:
                try:
                    channel = self._pool.free.pop()
                except IndexError:
                    channel = self._new_channel()
            # Else the daemon has ended meanwhile, and the numbers are others' in this one.
            if self._is_for(run, request, reference):
                before = b""
                if self._references.released or self.has_news or buffers.due:
                    before = self.words(channel)
                answer, answer_flags, body = channel.exchange(
                    kind, body, flags | body_flags, before, scope
                )
                if answer == wire.VALUE and not answer_flags:
                    return value_of(self, channel, body, 0, flags & wire.NESTED)
                if answer == wire.ERROR and answer_flags & wire.NOT_RUN:
                    raise NotRun(body, answer_flags)
                is_over = True
                has_numbers = answer == wire.REFERENCE or answer_flags & wire.WITH_REFERENCES
                if has_numbers and run is not self._attachment.settled:
                    raise ChannelClosed  # they are others' by now
                if answer == wire.VALUE:
                    return value_of(self, channel, body, answer_flags, flags & wire.NESTED)
                if answer == wire.REFERENCE:
                    proxy = self.proxy(*pickle.loads(body))
                    if kind == wire.GETATTR and reference is not None:
                        reference_of(proxy).found_as(request[1], reference)
                    return proxy
                failure = exception_of(self, body, channel.run)
            elif reference is None and not is_lasting(request[0]):
                failure = StaleReference(f"daemon {self.name!r}, where this object was, has ended")
        except AnswerUnusable as unusable:
            raise unusable.error from unusable.__cause__
        except BaseException as error:
            broken, channel = channel, None  # there is nothing to give back
            if is_over and isinstance(error, ChannelClosed | NotRun):
                error = ChannelClosed()  # it ran, and what comes of it is lost
            told = as_told(request, reference)
            failure = self.broken(broken, error, scope, kind, told, is_nested)
            if failure is error:
                raise
            if failure is not None:
                raise failure from (error if type(error) is ChannelClosed else None)
        finally:
            if channel is not None:
                if is_nested:
                    self._references.used()
                    channel.is_in_step = True
                else:
                    if channel.carries_oneways:
                        self._references.used()
                        channel.carries_oneways = False
                    self._give_back(channel)
        if failure is None:  # for the first time, in the next daemon
            request = self._succession.renewed(request, reference)
            return self.request(kind, request, flags & ~wire.NESTED, reference)
        try:
            if scope is not None and scope.is_over():
                told = as_told(request, reference)
                raise overdue(self.name, scope, kind, told, Overdue.INTERRUPTED) from failure
            raise failure
        finally:
            del failure  # or this frame and the exception's traceback would keep each other alive

    def _is_for(
        self, run: dict[str, Any], request: tuple[Any, ...], reference: Reference | None
    ) -> bool:
        """Whether the numbers in this request are of the run that we are attached to. (Ours are
        rewritten before a connection to the next one is there, see `Succession.ended`.)"""
        return run is self._attachment.settled and (
            reference is None or reference.oid is request[0]
        )

    # --- segments ---

    @property
    def lending(self) -> Lending:
        """The memory that is shared with the daemon."""
        if self._lending is None:
            from .lending import Lending

            with self._making_lock:
                self._lending = self._lending or Lending(self)
                while self._unread:
                    self._lending.refuse(self._unread.pop())
        return self._lending

    def unpack(self, body: bytes | memoryview) -> tuple[memoryview, list[Any]]:
        """(pickle, buffers) of a body from the daemon that has buffers."""
        try:
            lending = self.lending
        except OSError:  # out of descriptors, it cannot even be imported
            self._unread.append(body)
            raise
        return lending.unpack(body)

    def heard(self, body: bytes) -> None:
        """The daemon tells something of segments."""
        if self._lending is not None:
            self._lending.heard(body)

    def words(self, channel: Channel) -> bytes:
        """What the daemon is to be told before the next request, as frames for this channel."""
        frames = self._references.release_frame() if self._references.released else b""
        if buffers.due:
            self.lending.settle()
        return frames + self._news(channel) if self.has_news else frames

    def _news(self, channel: Channel) -> bytes:
        self.has_news = False  # first: what comes now is told the next time, at the latest
        lending = self._lending
        return b"" if lending is None else lending.frame(channel)

    # --- channels ---

    def borrow(self) -> tuple[Channel, int]:
        """A channel for requests of this thread, and the flags that these need on it."""
        return self._pool.borrow()

    def give_back(self, channel: Channel) -> None:
        """What was borrowed is free again, its requests answered."""
        self._references.used()
        if self.nested.get(threading.get_ident()) is channel:
            channel.is_in_step = True
        else:
            channel.carries_oneways = False
            self._give_back(channel)

    def broken(
        self,
        channel: Channel | None,
        error: BaseException,
        scope: Scope | None,
        kind: int,
        request: tuple[Any, ...],
        is_nested: bool = False,
    ) -> BaseException | None:
        """The exception to raise where an exchange was broken off by `error`. None where the
        request has not run, and may: the session is attached to the next daemon."""
        with interrupt.HeldOff():
            self._pool.gave_up(channel)
            if channel is not None and not isinstance(error, ChannelClosed | NotRun | Overdue):
                # Whatever it was (an interrupt, as a rule): an answer may still be on its way, and
                # would be taken for another's. The call, if it runs, is of no use to anybody now.
                channel.interrupt()
            self.discard(channel)
        if isinstance(error, ChannelClosed | NotRun):
            if scope is not None and scope.ends_by_cancel():
                return cancelled(self.name, kind, request)
            run = None if channel is None else channel.run
            if isinstance(error, NotRun) or not error.is_sent:
                return self._succession.not_run(error, kind, request, is_nested, run)
            return self._succession.died(kind, request, run)
        if isinstance(error, Overdue):
            assert scope is not None
            return overdue(self.name, scope, kind, request, error.how)
        return error

    def interrupt(self) -> bool:
        """Raise KeyboardInterrupt in the requests of ours that run; does one? Others never will."""
        said = [channel.interrupt() for channel in self._pool.open()]
        return "interrupted" in said

    # --- callbacks and one-way calls ---

    @property
    def callbacks(self) -> Callbacks:
        """The functions of ours that the daemon may call."""
        if self._callbacks is None:
            from .callbacks import Callbacks

            with self._making_lock:
                self._callbacks = self._callbacks or Callbacks(self)
        return self._callbacks

    @property
    def has_callbacks(self) -> bool:
        """Does the daemon have one of them now?"""
        return bool(self._callbacks)

    def serve_callback(self, channel: Channel, flags: int, body: bytes) -> None:
        """Run the function of ours that the call under way on this channel calls."""
        self.callbacks.serve(channel, flags, body)

    def send_oneway(
        self, kind: int, request: tuple[Any, ...], reference: Reference | None = None
    ) -> None:
        """Have a request carried out whose result nobody waits for.

        Its exception goes to the daemon's log. It is carried out before what this thread asks for
        later.
        """
        if self.gone is not None:
            request = self._succession.renewed(request, reference)
            self.come_back(request)
        run = self._attachment.settled
        self.generation += 1
        scope = current_scope.get()
        if scope is not None and scope.is_over():
            raise overdue(self.name, scope, kind, as_told(request, reference), Overdue.NOT_SENT)
        oids = {request[0]}
        body, flags = dumps(request, self, oids)
        flags |= wire.ONEWAY
        if not self._references.use(oids):
            self.request(wire.DESCRIBE, (wire.ROOT,))  # answered when those before have been made
            self._references.used()
            self._references.use(oids)
        channel = self._pool.nested_here()
        if channel is not None:
            flags |= wire.NESTED
        try:
            if channel is None:
                channel = self._pool.for_oneways()
            is_there = self._is_for(run, request, reference)
            if is_there:
                channel.number += 1
                channel.is_in_step = False
                channel.send_within(scope, wire.frame(kind, body, flags))
                channel.is_in_step = True
        except ChannelClosed as closed:
            self._pool.oneways.pop(threading.get_ident(), None)
            is_nested, told = bool(flags & wire.NESTED), as_told(request, reference)
            failure = self.broken(channel, closed, scope, kind, told, is_nested)
            if failure is not None:
                raise failure from closed
        except BaseException as error:
            # Half of it may have been sent; the calls before it are carried out all the same.
            self._pool.oneways[threading.get_ident()] = None
            self.discard(channel)
            if isinstance(error, Overdue) and scope is not None:
                told = as_told(request, reference)
                raise overdue(self.name, scope, kind, told, error.how) from None
            raise
        else:
            if is_there:
                return
        request = self._succession.renewed(request, reference)
        self.send_oneway(kind, request, reference)  # in the next daemon: this one did not take it

    def _new_channel(self) -> Channel:
        try:
            channel = self.connect()
            self._attachment.check_run(channel)
            if self._events is None:
                self.listen()  # in a forked child
        except CallTimeout:
            raise
        except OSError as error:
            raise ChannelClosed(is_sent=False) from error
        try:
            self._ready(channel)
        except ChannelClosed as closed:
            closed.is_sent = False
            raise
        return channel

    def _give_back(self, channel: Channel) -> None:
        if self.gone is not None:
            self.discard(channel)
            return
        self._pool.free.append(channel)
        if not self._references.alive:
            self.close()  # the last proxy went while this call was under way
        elif self._references.released or self.has_news:
            background.collected.put(self)

    def discard(self, channel: Channel | None) -> None:
        """It is of no more use."""
        if channel is None:
            return
        self._pool.discard(channel)
        if self._lending is not None:
            self._lending.channel_is_over(channel)

    # --- proxies and their release ---

    def proxy(self, *reference: Any) -> ObjectProxy:
        """The one proxy of this object here, from the body of a REFERENCE."""
        _SESSIONS.add(self)
        return self._references.proxy(*reference)

    def decline(self, *reference: Any) -> None:
        """Give a reference back at once; the same body."""
        self._references.decline(*reference)

    def release(self, entry: ProxyRef) -> None:
        """On the janitor's thread: the proxy of this entry was collected."""
        self._references.collected(entry)
        if self.gone is not None and not self._references.alive:
            _SESSIONS.discard(self)

    def tidy(self) -> bool:
        """On the janitor's thread: what collected proxies and arrays leave to be done. Never waits.
        True if it is to be called again in a while."""
        if self.gone is not None:
            return False
        if not self._references.alive and self._pool.is_at_rest:
            self.close()
            return False
        is_left = self._lending is not None and self._lending.trim()
        while self._references.released or self.has_news:
            try:
                channel = self._pool.free.pop()
            except IndexError:
                break  # the call under way will see to it at its end
            frame = self._references.release_frame()
            news = self._news(channel) if self.has_news else b""
            try:
                channel.sock.send(frame + news, socket.MSG_DONTWAIT)
            except BlockingIOError:
                # The daemon is busy and full of releases already; the next call takes them along.
                self._references.put_back(frame)
                if news and self._lending is not None:
                    self._lending.not_sent(channel)
                self._pool.free.append(channel)
                break
            except OSError:
                self.discard(channel)
            else:
                self._give_back(channel)
        return is_left

    def on_event(self, events: background.Events, kind: int, flags: int, body: bytes) -> None:
        """On the listener's thread: something that belongs to no call of ours."""
        if self._events not in (None, events):
            return  # of an attachment before: its numbers mean others now
        if kind == wire.SEGMENTS:
            self.heard(body)
        elif kind == wire.CALLBACK:
            self.callbacks.serve_between_calls(events.send, flags, body)
        elif kind == wire.DROPPED and self._callbacks is not None:
            self._callbacks.dropped(pickle.loads(body))
        elif kind == wire.DONE and self.line is not None:
            self.line.task_done(*pickle.loads(body))

    def on_events_ended(self, events: background.Events, reason: str, comes_back: bool) -> None:
        """On the listener's thread: the daemon has ended, as it had said."""
        if events is self._events:  # else it is known, and this session has another by now
            self.ended(reason, events.run_of_daemon, may_come_back=True, comes_back=comes_back)

    def on_events_over(self, events: background.Events) -> None:
        """On the listener's thread: the daemon is gone without a word. Who makes a request will
        find out; for those who wait for tasks there, somebody has to."""
        if events is self._events and self.line is not None and self.line.has_tasks:
            from .line import in_thread

            in_thread(self._succession.died, None, (), events.run_of_daemon)

    # --- its end ---

    def ended(
        self,
        reason: str,
        run: Run | None = None,
        *,
        may_come_back: bool = False,
        comes_back: bool = False,
    ) -> None:
        """The daemon has ended, in this `run` if one is given: see `Succession.ended`."""
        self._succession.ended(reason, run, may_come_back=may_come_back, comes_back=comes_back)

    def come_back(self, request: tuple[Any, ...]) -> None:
        """Attach anew where the daemon has ended: see `Succession.come_back`."""
        self._succession.come_back(request)

    def let_go(self, error: DaemonDied, *, comes_back: bool) -> None:
        """Of what was the daemon's, which has ended; its calls that wait fail with this `error`, or
        are made in the next one if it `comes_back`."""
        if self.line is not None:
            self.line.daemon_ended(error, comes_back=comes_back)
        for channel in self._pool.empty():
            self.discard(channel)
        self._callbacks = None
        self._end_lending()

    def close(self) -> None:
        """End the lease. The daemon drops what it held for us, and ends if it was ours alone."""
        if self.gone is not None:
            return
        self.gone = "was left by this process"
        _SESSIONS.discard(self)
        log("debug", "[DaemonProxy] last proxy of daemon %r is gone, leaving it", self.name)
        for channel in self._pool.open():
            self.discard(channel)
        self._pool.empty()
        self._end_lending()
        if self._events is not None:
            self._events.leave()

    def _end_lending(self) -> None:
        lending, self._lending = self._lending, None
        self._unread.clear()
        self.has_news = False
        if lending is not None:
            lending.close()

    def forked(self) -> None:
        """In a forked child: the connections are the parent's, and so are its answers."""
        self._pool.forked()
        self._callbacks = None  # those that are in use run in the parent
        self._lending = None  # the segments are the parent's
        self._unread.clear()
        self.has_news = False
        self._making_lock = threading.Lock()
        self._succession.forked()
        self.quiet = threading.RLock()
        self.line = None
        if self._events is not None:
            self._events.sock.close()
            self._events = None
        self._references.forked()
        self._attachment.forked()


# Those with a proxy. Held here, not by their proxies alone: when a proxy goes as part of a cycle,
# the collector would else take the session too, and call back no weak reference that goes as well.
_SESSIONS: set[Session] = set()


def session_of(name: str, run: tuple[str, int] | None) -> Session | None:
    """A session that this process has with the daemon of that name (and that run of it), if any."""
    for session in list(_SESSIONS):
        if session.name == name and session.gone is None and run in (None, session.run):
            return session
    return None


def _after_fork_in_child() -> None:
    background.forked()
    interrupt.forked()
    for session in list(_SESSIONS):
        session.forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
