"""Requests under way: carrying them out, interrupting them, and calling back from them.

The one rule: one request runs at a time. While one waits for a callback, others are carried out
before it goes on, those that the callback itself makes on the same thread (see `floor.py`).
"""

import collections
import contextlib
import itertools
import os
import pickle
import signal
import sys
import threading
from math import frexp
from time import monotonic

from . import buffers, callbacks, interrupts, objects, wire
from .borrower import settle
from .failures import (
    KernelError,
    describe_error,
    error_frame,
    forget_traceback,
    format_error,
)
from .floor import Relief
from .programs import Programs
from .requests import Requests
from .running import Running

_modules = sys.modules

# What is no request: said in passing, and not answered.
_WORDS = (wire.RELEASE, wire.SEGMENTS, wire.RETURN, wire.RAISE)

_PIPELINED = wire.PIPELINED | wire.FOLLOWED

# An interrupt that has not come through is sent again, then after twice the time, and so on.
FIRST_INSIST_SECONDS = 0.05
MOST_INSIST_SECONDS = 1.0

# A client opens its event connection before its first request, but it may not be accepted yet.
EVENTS_SECONDS = 1.0


class Calls:
    """What runs and what waits; `server` moves the bytes."""

    def __init__(self, server):
        self._server = server
        self._exports = server.exports
        self._answers = server.answers
        self._handlers = Requests(server.exports, server.answers, server.tasks).handlers
        self._handlers[wire.PROGRAM] = Programs(server, self).run
        self._imported = server.drift.modules
        self._gathering = server.gathering
        self._main_thread = threading.get_ident()
        self._settling = threading.Lock()  # a request is either over or interrupted
        self._callback_numbers = itertools.count(1)
        self._interrupts_held = False
        self.insist_at = None  # when to send an interrupt once more
        self._insist_seconds = FIRST_INSIST_SECONDS
        self.control_thread = None
        self.count = 0
        self.failed = 0
        # How many took so long: by the exponent of the fourth power of their seconds, so that four
        # buckets are an octave. Of all ways that were tried this takes the least time.
        self.durations = [0] * 256
        self.limit = -1  # the count that is to be told
        self.on_limit = None
        self.running = None  # of the thread that has the floor
        self.waiting = []  # for their callbacks
        self._caller = None  # (connection, thread) that what is printed now belongs to
        signal.signal(signal.SIGINT, self._on_interrupt)

    @property
    def busy(self):
        """What to name when asked what runs: it may itself be waiting for its callback."""
        waiting = self.waiting
        return self.running or (waiting[-1] if waiting else None)

    def figures(self):
        """The "figures" of a pong."""
        counted = enumerate(self.durations)
        return {
            "failed": self.failed,
            "durations": [[i if i < 128 else i - 256, count] for i, count in counted if count],
        }

    def caller_here(self):
        """The connection that what this thread prints belongs to, if any."""
        caller = self._caller
        return caller[0] if caller and caller[1] == threading.get_ident() else None

    # --- one request ---

    def answer(self, connection, kind, flags, body):
        """Carry out one request and answer it; False when its connection is over."""
        handler = self._handlers.get(kind)
        if handler is None and kind in _WORDS:
            return self._hear(connection, kind, flags, body)
        if handler is None or (connection.is_over and not flags & wire.ONEWAY):
            # Garbage, or a client that is dead and does not want it any more.
            self._server.drop(connection)
            return False
        number = connection.number + 1
        running = Running(connection, number, kind, flags)
        connection.running = self.running = running  # in this order: see interrupt()
        connection.number = number
        if connection.referenced:
            connection.referenced.clear()
        self._caller = connection, running.thread
        is_cut_off = False
        try:
            request = running.request = self._load(connection, body, flags)
            if connection.cancelled or running.outer is not None:
                self._check_withdrawn(running)
            reply = handler(connection, flags, *request)
            running.request = request = None  # so that what it borrowed goes back with the answer
            with self._settling:
                self.running = None
            if running.is_cancelled:  # it came too late, but still counts
                self._give_back(connection)
                raise KeyboardInterrupt
        except BaseException as error:
            self.failed += 1
            running.request = request = None
            self.running = None
            interrupts.forget(running)
            if self._server.is_child:
                self._server.exit_child(error)
            if running.limit is not None and issubclass(type(error), KeyboardInterrupt):
                error = KernelError("CallTimeout", running.limit, format_error(error))
            # Whoever interrupts one of many calls does not want the rest of them either.
            is_cut_off = flags & wire.PIPELINED and issubclass(type(error), KeyboardInterrupt)
            reply = self._failed(connection, flags, error)
        if self._server.is_child:
            self._server.exit_child(None)
        connection.running = running.outer
        count = self.count = self.count + 1
        if count == self.limit:
            self.on_limit(count)
        now = monotonic()
        seconds = now - running.since
        seconds *= seconds
        self.durations[frexp(seconds * seconds)[1]] += 1  # a negative one counts from the end
        if len(_modules) != self._imported.count:
            self._imported.note()
        if self._server.has_output:
            self._server.flush()  # the rest of a line belongs before the answer
        self._caller = None
        if running.dropped is not None:
            for dropped in running.dropped:
                self._tell_dropped(*dropped)
        if flags & _PIPELINED and connection.held is not None:
            connection.kept[number], connection.held = connection.held, None
        session = connection.session
        if buffers.due:
            settle()
        if flags & wire.ONEWAY:
            self._give_back(connection)
            self._server.tell_news(session)
            return True
        if session.has_news:
            reply = session.news(connection) + reply
        if not is_cut_off and self._gathering.takes(connection, flags, reply, now):
            return True
        try:
            connection.send(reply)
        except OSError:
            self._give_back(connection)
            is_cut_off = True
        if is_cut_off:
            self._server.drop(connection)
        return not is_cut_off

    def _load(self, connection, body, flags):
        try:
            if not flags & (wire.WITH_REFERENCES | wire.WITH_BUFFERS):
                try:
                    return pickle.loads(body)
                except (ImportError, AttributeError):
                    return buffers.Unpickler(body).load()  # finds what other versions name
            session, large = connection.session, ()
            if flags & wire.WITH_BUFFERS:
                body, large = session.unpack(body)
            known = self._callbacks_of(session)
            return callbacks.ArgumentUnpickler(body, self._exports, known, large).load()
        except objects.UnknownReference:
            raise
        except Exception as error:
            if flags & wire.LOST or isinstance(error, (OSError, MemoryError)):
                text = "there is no room in daemon %r for the arguments: %s" % (
                    self._server.name,
                    "not enough memory" if flags & wire.LOST else error,
                )
                raise KernelError("Unsendable", text, format_error(error)) from None
            from . import names  # which few daemons need

            remedy = getattr(error, "remedy", "what they name must be importable there")
            _, kind, message = describe_error(error)
            text = "the arguments cannot be loaded in daemon %r (%s: %s): %s"
            text %= (self._server.name, kind, message, remedy)
            unsendable = KernelError("Unsendable", text, format_error(error))
            needed = names.packages_in(body)
            if isinstance(error, ImportError) and error.name:
                needed.add(error.name.partition(".")[0])
            unsendable.versions = names.versions(needed)
            raise unsendable from None

    def _failed(self, connection, flags, error):
        """The answer that tells of an exception."""
        connection.held = None
        error = self.said_why(error, "DaemonDied")
        if flags & wire.ONEWAY:
            self._server.flush()
            text = "a one-way call failed:\n" + format_error(error)
            os.write(2, text.encode("utf-8", "backslashreplace"))
        reply = error_frame(connection, error)
        forget_traceback(error)
        return reply

    def said_why(self, error, kind):
        """The error to report: a client must not take the end of the daemon for its own Ctrl-C."""
        server = self._server
        if not (server.is_ending and issubclass(type(error), KeyboardInterrupt)):
            return error
        text = "daemon %r was ended while this ran: %s" % (server.name, server.ending_reason)
        return KernelError(kind, text, format_error(error))

    def _hear(self, connection, kind, flags, body):
        """What is no request and gets no answer; garbage costs the connection."""
        try:
            if kind == wire.RELEASE:
                self._release(connection, body)
            elif kind == wire.SEGMENTS:
                connection.session.segments.heard(body)
            else:
                self._unwanted(connection.session, (kind, flags, body))
        except Exception:  # unpickling garbage may raise anything, and so may what comes out of it
            self._server.drop(connection)
            return False
        if connection.gathered_bytes:
            connection.release()  # no answer may come behind this
        return True

    def _release(self, connection, body):
        connection.held = None
        if connection.running is None:  # else it is from a callback that one of a batch makes
            connection.kept.clear()
        for oid, count in pickle.loads(body):
            self._exports.release(connection.session, oid, count)

    def _give_back(self, connection):
        """The references in an answer that nobody gets."""
        for oid in connection.referenced:
            self._exports.release(connection.session, oid, 1)
        connection.referenced.clear()

    # --- interrupts ---

    def interrupt(self, connection=None, number=None):
        """Raise KeyboardInterrupt in what runs, or in that request; from the control thread.

        "interrupted" if it will be raised (where the request waits for a callback: at the return of
        that), "withdrawn" if the request has not begun and will not, "" if it is over.
        """
        if connection is None:
            return self.interrupt_running(self.busy)
        # Marked first, looked for then; the request is made known first and looks for marks then.
        # So one of the two sees the other.
        connection.cancelled.add(number)
        running = connection.running
        while running is not None and running.number != number:
            running = running.outer
        if running is not None:
            connection.cancelled.discard(number)
            return self.interrupt_running(running)
        if number > connection.number:
            return "withdrawn"
        connection.cancelled.discard(number)
        running = connection.running
        if running is not None and running.flags & wire.PIPELINED and connection.gathered_bytes:
            # Its client means what runs, and has not heard of it, as this answer waits for others.
            return self.interrupt_running(running)
        return ""

    def limit_reached(self, connection, number, text):
        """The same as `interrupt` for a request that has run too long, which is told so: the text
        is that of its CallTimeout."""
        running = connection.running
        while running is not None and running.number != number:
            running = running.outer
        if running is None:
            return ""
        running.limit = text
        return self.interrupt_running(running)

    def interrupt_running(self, running):
        """The same for this one, if it still runs."""
        with self._settling:
            if running is None:
                return ""
            if running is not self.running:
                if running not in self.waiting:
                    return ""
                running.is_cancelled = True
                return "interrupted"
            running.is_cancelled = True
            interrupts.send(running)  # within the lock: later it could hit what comes after
        self._insist_after(FIRST_INSIST_SECONDS)
        return "interrupted"

    def _insist_after(self, seconds):
        self._insist_seconds = seconds
        self.insist_at = monotonic() + seconds

    def insist(self):
        """Send the signal again: it may have come just before a system call, which it then has not
        ended. As long as our handler has not run; on the control thread, when it is time."""
        self.insist_at = None
        with self._settling:
            running = self.running
            if running is None or not running.is_cancelled or running.thread != self._main_thread:
                return
            if signal.getsignal(signal.SIGINT) != self._on_interrupt:
                return  # user code's own, which counts them
            interrupts.send(running)
        self._insist_after(min(self._insist_seconds * 2, MOST_INSIST_SECONDS))

    def _check_withdrawn(self, running):
        """Raise KeyboardInterrupt if this request, or one whose callback made it, is not wanted."""
        connection = running.connection
        if running.number in connection.cancelled:
            connection.cancelled.discard(running.number)
            raise KeyboardInterrupt
        outer = running.outer
        while outer is not None:
            if outer.is_cancelled:
                raise KeyboardInterrupt
            outer = outer.outer

    def _on_interrupt(self, signum, stack_frame):
        self.check_interrupt()

    def check_interrupt(self):
        """Raise the KeyboardInterrupt that is due, if the request it is meant for still runs."""
        running = self.running
        if running is None or not running.is_cancelled or self._interrupts_held:
            return
        if threading.get_ident() == running.thread == self._main_thread:
            running.is_cancelled = False
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def interrupts_held(self):
        """No interrupt in here; one that came is raised by the next `check_interrupt`."""
        if threading.get_ident() != self._main_thread:
            yield  # signals are handled on the main thread alone
            return
        held, self._interrupts_held = self._interrupts_held, True
        try:
            yield
        finally:
            self._interrupts_held = held

    @contextlib.contextmanager
    def interrupts_let_through(self):
        """Within `interrupts_held`: one that is due is raised in here."""
        held, self._interrupts_held = self._interrupts_held, False
        try:
            self.check_interrupt()
            yield
        finally:
            self._interrupts_held = held

    def heed_interrupt(self):
        """What runs has dealt with the interrupt that was meant for it; raises where that was for
        taking too long."""
        with self._settling:
            self.running.is_cancelled = False
        if self.running.limit is not None:
            raise KernelError("CallTimeout", self.running.limit)

    def leave_to_parent(self):
        """In a forked child of user code: no lock of the parent's, and nobody to print for."""
        self._settling = threading.Lock()
        self._caller = None

    # --- callbacks ---

    def _callbacks_of(self, session):
        if session.callbacks is None:
            session.callbacks = callbacks.Callbacks(self, session)
        return session.callbacks

    def call_back(self, session, callback_id, name, args, kwargs):
        """Run a function of the client of this session, with whatever it calls here meanwhile."""
        callbacks.need_room()
        server = self._server
        if server.is_ending or server.is_child:
            state = "is ending" if server.is_ending else "has forked this process"
            text = "daemon %r %s: the callback %s is not called any more"
            raise ReferenceError(text % (server.name, state, name))
        if threading.get_ident() == self.control_thread:
            # The collector runs finalizers on any thread; this is the one that would end the wait.
            raise ReferenceError("the callback %s cannot be called on spawny's own thread" % name)
        running = self.running
        is_here = (
            running is not None
            and running.thread == threading.get_ident()
            and running.connection is not None
            and running.connection.session is session
            and not running.connection.is_over
            and not running.flags & wire.ONEWAY  # for which no thread waits there
        )
        if not is_here and not session.has_events.wait(0 if session.is_over else EVENTS_SECONDS):
            raise _left(name)
        connection = running.connection if is_here else session.events
        reply = None
        while reply is None or reply[0] == wire.RETURN and reply[1] & wire.UNLOADED:
            # The second time, with what the client could not load left here.
            number = next(self._callback_numbers)
            items = list(args) + list(kwargs.values())
            rest = callback_id, tuple(kwargs)
            body, flags = self._answers.pack(connection, items, rest, reply is not None)
            frame = wire.frame(wire.CALLBACK, wire.NUMBER.pack(number) + body, flags)
            if is_here:
                reply = self._call_back_here(running, frame, number, name)
            else:
                reply = self._call_back_elsewhere(session, frame, number, name)
        known = self._callbacks_of(session)
        return callbacks.result_of(reply, self._exports, known, session, name)

    def _call_back_here(self, running, frame, number, name):
        """By the thread of the client that waits for this very call."""
        connection = running.connection
        self._server.flush_pending()
        raised = None
        with self._callback_wait(running):
            later = collections.deque()
            try:
                while True:
                    try:
                        if frame is not None:
                            data, frame = frame, None
                            connection.send(data)
                            connection.referenced.clear()
                        reply = self._reply(connection, number, later)
                        if reply is not None:
                            break
                        self._server.wait_for(connection)
                    except (RecursionError, MemoryError):
                        self._server.drop(connection)
                        raise
                    except BaseException as error:
                        # Of a signal handler of user code, unless the client is gone. It must wait:
                        # the client is in the callback, and would take an answer for that of a
                        # call made there.
                        raised = error
                    if self._server.is_ending:
                        raise KeyboardInterrupt
                    if connection.is_over:
                        raise _left(name)
            finally:
                connection.frames.extendleft(reversed(later))
        if raised is not None:
            self._unwanted(connection.session, reply)
            raise raised
        return reply

    def _reply(self, connection, number, later):
        """The answer to this callback, if it is among the frames that have come; carries out the
        requests that the callback makes, and keeps those for `later` that only follow it."""
        while connection.frames:
            kind, flags, body = connection.frames.popleft()
            if kind in (wire.RETURN, wire.RAISE):
                if callbacks.number_of(body) == number:
                    return kind, flags, body
            elif kind in (wire.RELEASE, wire.SEGMENTS) or flags & wire.NESTED:
                self.answer(connection, kind, flags, body)
                connection.referenced.clear()  # those were in that answer, not in the one to come
            else:
                later.append((kind, flags, body))
        return None

    def _call_back_elsewhere(self, session, frame, number, name):
        """By a thread of its own there: no call of that client is what calls back."""
        pending = session.pending[number] = callbacks.Pending()
        if session.is_over:
            pending.is_over.set()
        session.events.push(frame, is_dispensable=False)
        session.events.referenced.clear()
        thread = threading.current_thread()
        has_floor = type(thread) is Relief or thread.ident == self._main_thread
        if not has_floor:
            pending.is_over.wait()
        else:
            self._server.flush_pending()
            running = self.running
            connection = None if running is None else running.connection
            try:
                with self._callback_wait(running), self._server.unread(connection):
                    pending.relief = thread if type(thread) is Relief else None
                    while not (pending.is_over.is_set() or self._server.is_ending):
                        self._server.wait_for(None)
                    pending.relief = None
            except BaseException:
                session.pending.pop(number, None)
                self._unwanted(session, pending.reply)
                raise
        session.pending.pop(number, None)
        if pending.reply is None:
            raise _left(name)
        return pending.reply

    def returned(self, session, kind, flags, body):
        """On the control thread: a callback that no call waits for on its connection is over."""
        pending = session.pending.get(callbacks.number_of(body))
        if pending is None:
            self._unwanted(session, (kind, flags, body))
        else:
            pending.reply = kind, flags, body
            self._wake(pending)

    def _unwanted(self, session, reply):
        """Nobody waits for the return of this callback any more."""
        if reply is not None:
            _, flags, body = reply
            session.refuse(flags, memoryview(body)[wire.NUMBER.size :])

    def session_is_over(self, session):
        """On the control thread: the client is gone, and so are its functions."""
        session.is_over = True
        session.close_descriptors()
        running = self.running
        if (
            running is not None
            and running.kind == wire.PROGRAM
            and running.connection.session is session
        ):
            self.interrupt_running(running)  # it reads its client's terminal, which others need
        for pending in list(session.pending.values()):
            self._wake(pending)

    def _wake(self, pending):
        pending.is_over.set()
        self._server.post(self._resume, pending)

    def _resume(self, pending):
        relief, pending.relief = pending.relief, None
        if relief is not None:
            self._server.floor.resume(relief)

    @contextlib.contextmanager
    def _callback_wait(self, running):
        """While this call waits, others run; it is interrupted when it goes on."""
        caller = self._caller
        if running is not None:
            with self._settling:
                self.running = None
                self.waiting.append(running)
        self._caller = None
        try:
            yield
        finally:
            self._caller = caller
            if running is not None:
                with self._settling:
                    self.waiting.remove(running)
                    self.running = running
        if (running is not None and running.is_cancelled) or self._server.is_ending:
            if running is not None:
                running.is_cancelled = False
            raise KeyboardInterrupt

    def drop_callback(self, session, callback_id, count):
        """User code has let go of a callback; from any thread, in the middle of anything."""
        running = self.running
        if running is None or running.thread != threading.get_ident():
            self._server.post(self._tell_dropped, session, callback_id, count)
            return
        # The collector comes here before the finalizers of a cycle, which may call it once more.
        running.dropped = running.dropped or []
        running.dropped.append((session, callback_id, count))

    def _tell_dropped(self, session, callback_id, count):
        if not session.is_over:
            session.tell(wire.frame(wire.DROPPED, pickle.dumps([(callback_id, count)], 2)))


def _left(name):
    return ReferenceError("the client that the callback %s runs in has left" % name)
