"""The supervisor's process: one thread, one loop, one wait.

The loop waits for requests, links, ends of processes, signals and the core's next deadline; each
becomes an event, each event a list of actions. Whatever goes wrong with one of them is logged here
and costs that one alone.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from .. import __version__, config, control, settings
from ..address import DAEMON_VARIABLE
from ..errors import InvalidRequest, SpawnyError
from ..paths import Paths, check_socket_path, locate, make_private
from . import (
    actions,
    adoption,
    declared,
    descriptors,
    events,
    handover,
    interpreters,
    notify,
    singleton,
)
from .core import Core
from .handover import Handover
from .journal import Journal
from .lifecycle import State
from .links import Links
from .lookups import Lookups
from .perform import Performer
from .premises import Premises
from .processes import BOOT, Processes
from .sockets import ControlSocket, Received, listen
from .succession import execute
from .values import Caller
from .watch import Watch
from .zygotes import Zygotes

logger = logging.getLogger(__name__)

# The name of the socket in the systemd unit.
_CONTROL_SOCKET = "control"

EXIT_ALREADY_RUNNING = 3

# They wait for what came earlier about the same daemon.
_ABOUT_ONE = control.FindDaemon | control.StopDaemon | control.RestartDaemon

# So many turns of the loop that fail in a row are no accident of one message: the daemons fare
# better under a new supervisor.
_HOPELESS_FAILURES = 20


class Supervisor:
    """The edges and the core, joined by a loop.

    Args:
        paths: Where everything is; the directories exist.
        figures: The settings.
        is_service: Never ends for want of work.
        listener: The control plane's socket, when the service manager has bound it.
        boot: What daemons' interpreters are started with.
        lock_fd: The lock that makes it the one supervisor; for its successor.
        arguments: What its successor is to be started with.
        before: What it has taken over, where it is a successor itself.
        idle_exit: What overrules the configuration.
        descriptor_limit: How many descriptors daemons may have; None: as many as we.
    """

    def __init__(
        self,
        paths: Paths,
        figures: settings.Settings,
        *,
        is_service: bool,
        listener: socket.socket | None = None,
        boot: str = BOOT,
        lock_fd: int,
        arguments: Sequence[str] = (),
        before: Handover | None = None,
        idle_exit: float | None = None,
        descriptor_limit: int | None = None,
    ) -> None:
        self._is_service = is_service
        self._idle_exit = idle_exit
        self._paths = paths
        self._lock_fd = lock_fd
        self._arguments = arguments
        self._before = before
        owns_socket = listener is None if before is None else before.owns_socket
        if before is not None:
            listener = _inherited(before.control_fd)
        listener = listener or listen(paths.supervisor_socket)
        self._clients = ControlSocket(listener, paths.supervisor_socket)
        self._watch = Watch()
        self._daemons = Links(
            paths.link_socket, self._watch, None if before is None else _inherited(before.link_fd)
        )
        self._lookups = Lookups()
        self._watch.put(self._lookups.fileno())
        self._descriptor_limit = descriptor_limit
        self._processes = Processes(paths, self._watch, boot, descriptor_limit=descriptor_limit)
        self._zygotes = Zygotes(
            paths, self._watch, self._processes, descriptor_limit=descriptor_limit
        )
        self._journal = Journal(paths.journal)
        self._premises = Premises(
            paths, lock_fd, self._clients, self._daemons, self._journal, owns_socket=owns_socket
        )
        self._performer = Performer(
            paths,
            figures,
            self._clients,
            self._daemons,
            self._processes,
            self._zygotes,
            self._journal,
            self._premises,
            self._watch,
        )
        self._core = Core(
            figures,
            control.Welcome(__version__, os.getpid(), sys.executable, is_service, control.PROTOCOL),
            log_of=lambda name: str(paths.log_file(name)),
            jitter=random.random,
            now=time.monotonic(),
        )
        self._notifier = notify.Notifier.from_environ(os.environ)
        self._watchdog_seconds = notify.watchdog_seconds(os.environ)
        self._watchdog_at = 0.0
        self._signals: list[int] = []

    def adopt(self) -> None:
        """Take up what an earlier supervisor left."""
        living, known = set(), set()
        if self._before is not None:
            logger.info("upgraded from spawny %s to %s", self._before.version, __version__)
            records = self._before.records
            known = {each.name for each in records if each.state is not State.ENDED}
            living = {each.name for each in records if each.identity is not None}
            self._feed(events.HandedOver(records, self._before.answered))
        for event in adoption.read_journal(self._journal, self._paths):
            if event.request.name in known:
                continue
            if event.identity is not None:
                living.add(event.request.name)
            self._feed(event)
        adoption.poke_daemons(self._paths, frozenset(living))

    def configure(self, daemons: Mapping[str, config.DeclaredDaemon]) -> None:
        """Know the daemons of the configuration, and start those that are to be; after `adopt`."""

        def configured(found: Mapping[str, events.Declared]) -> events.Configured:
            return events.Configured(found, is_first=self._before is None)

        if not daemons:
            self._feed(configured({}))
            return
        folder = str(self._paths.config)
        self._lookups.begin(
            set(daemons),
            lambda: configured(declared.resolve(daemons, folder)),
            lambda problem: configured({}),
        )

    def _reload(self, caller: Caller | None, dry_run: bool) -> None:
        if not dry_run:
            self._notifier.reloading()
        path, idle_exit = self._paths.config_file, self._idle_exit
        self._lookups.begin(
            None,
            lambda: declared.reload(path, idle_exit, caller, dry_run),
            lambda problem: declared.not_reloaded(caller, dry_run, problem),
        )

    def serve(self) -> str:
        """Serve until there is a reason to end, and answer it."""
        with self._wakeup() as wakeup:
            self._take_exits(())  # nobody tells of those that ended while we were executed
            self._notifier.ready("serving")
            failures = 0
            while self._performer.exit_reason is None:
                try:
                    self._turn(wakeup)
                    failures = 0
                except Exception:
                    logger.exception("a turn of the loop failed")
                    failures += 1
                    if failures == _HOPELESS_FAILURES:
                        raise
                if self._performer.handover is not None:
                    self._hand_over(self._performer.handover)
        return self._performer.exit_reason

    def _hand_over(self, action: actions.HandOver) -> None:
        """Become the next version; returns only if that fails."""
        self._performer.handover = None
        self._notifier.reloading()
        fds = (self._lock_fd, self._clients.suspend().fileno(), self._daemons.listener.fileno())
        try:
            self._zygotes.close()
            owns_socket = self._premises.owns_socket
            handover_fd = handover.write(fds, owns_socket, action.records, action.answered)
            descriptors.limit_to(self._descriptor_limit)
            execute(action.python, action.python_path, self._arguments, handover_fd)
        except OSError as error:
            logger.exception("could not become the next version")
            descriptors.raise_limit()
            for fd in fds:
                os.set_inheritable(fd, False)
            self._clients.resume()
            self._notifier.ready("serving")
            self._feed(events.SuccessionFailed(str(error)))

    def close(self) -> None:
        """Leave nothing but the daemons and their journal."""
        self._notifier.stopping(self._performer.exit_reason or "")
        self._premises.remove()
        self._performer.succession.abandon()
        self._lookups.close()
        self._zygotes.close()
        self._daemons.close_all()
        self._clients.close()
        self._watch.close()

    # --- one turn of the loop -------------------------------------------------------------------

    def _turn(self, wakeup: socket.socket) -> None:
        has_requests, ready = self._clients.wait(self._watch, self._patience())
        self._daemons.accept_again()
        # Before the links: a daemon that was forked is known when it says hello.
        forked = [*self._zygotes.advance()]
        for each in forked:
            self._feed(each)
        for fd, is_writable in ready.items():
            if fd == wakeup.fileno():
                self._take_signals(wakeup)
            elif fd == self._lookups.fileno():
                self._take_lookups()
            else:
                for checked in self._performer.succession.advance(fd):
                    self._feed(checked)
                for event in self._daemons.advance(fd, is_writable=is_writable):
                    self._feed(event)
        # After the links: what a daemon said before it died comes first.
        is_timed = self._processes.interval is not None
        if is_timed or forked or self._processes.have_ended(ready):
            self._take_exits(ready)
        if has_requests:
            for received in self._clients.receive():
                self._take_request(received)
        deadline = self._core.next_deadline()
        if deadline is not None and time.monotonic() >= deadline:
            self._feed(events.DeadlineReached())
        self._pat_watchdog()

    def _patience(self) -> float | None:
        """How long to wait at most; None: until something happens."""
        now = time.monotonic()
        due = [self._core.next_deadline()]
        if self._processes.interval is not None:
            due.append(now + self._processes.interval)
        if self._watchdog_seconds is not None:
            due.append(self._watchdog_at)
        due += [self._daemons.accepts_again_at, self._zygotes.deadline]
        return min((max(0.0, each - now) for each in due if each is not None), default=None)

    def _feed(self, event: events.Event) -> None:
        """Let the core decide on an event, and do what it says; what comes of that goes first."""
        try:
            todo = self._core.step(event, time.monotonic())
        except Exception as error:
            logger.exception("could not decide on %.500r", event)
            if isinstance(event, events.StartRequested | events.Requested):
                message = f"the supervisor failed: {error!r}; its log has more"
                self._clients.send(event.caller, control.Refused("SpawnyError", message))
            return
        for action in todo:
            for follows in self._perform(action):
                self._feed(follows)

    def _perform(self, action: actions.Action) -> list[events.Event]:
        try:
            return self._performer.perform(action)
        except Exception:
            logger.exception("could not perform %.500r", action)
            return []

    def _take_exits(self, ready: Iterable[int]) -> None:
        for exit_event in self._processes.exited(ready):
            if isinstance(exit_event, events.ProcessExited):
                # It may have said why since the links were read.
                link = self._core.link_of(exit_event.name)
                for event in self._daemons.drain(link) if link is not None else ():
                    self._feed(event)
            self._feed(exit_event)

    def _take_request(self, received: Received) -> None:
        caller, request = received.caller, received.message
        if isinstance(request, control.StartDaemon):
            self._start(caller, request)
        elif isinstance(request, control.Reload):
            self._reload(caller, request.dry_run)
        elif isinstance(request, _ABOUT_ONE) and self._lookups.has(request.name):
            self._lookups.hold(request.name, events.Requested(caller, request))
        else:
            self._feed(events.Requested(caller, request))

    def _start(self, caller: Caller, request: control.StartDaemon) -> None:
        """Look up the interpreter: here where a look at a file will do, else beside the loop."""
        event = interpreters.requested_at_once(caller, request)
        if event is None:
            self._core.touch(time.monotonic())
            self._lookups.begin(
                {request.name},
                lambda: interpreters.requested(caller, request),
                lambda problem: events.StartRequested(
                    caller, request, None, problem, "SpawnyError"
                ),
            )
        elif self._lookups.has(request.name):
            self._lookups.hold(request.name, event)
        else:
            self._feed(event)

    def _take_lookups(self) -> None:
        for event in self._lookups.take():
            self._feed(event)
            if isinstance(event, events.ReloadRequested) and not event.dry_run:
                self._notifier.ready("serving")

    # --- signals and the service manager --------------------------------------------------------

    @contextmanager
    def _wakeup(self) -> Iterator[socket.socket]:
        """A socket that becomes readable with a signal."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)

        def note(number: int, frame: FrameType | None) -> None:
            self._signals.append(number)

        # SIGCHLD tells of orphans that we have inherited. And were it ignored, as whoever started
        # us may have left it, the system would keep no exit codes for us.
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
        before_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        before = {number: signal.signal(number, note) for number in numbers}
        self._watch.put(reader.fileno())
        try:
            yield reader
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before_fd)
            self._watch.drop(reader.fileno())
            reader.close()
            writer.close()

    def _take_signals(self, wakeup: socket.socket) -> None:
        wakeup.recv(4096)
        while self._signals:
            number = self._signals.pop(0)
            name = signal.Signals(number).name
            if number == signal.SIGCHLD:
                self._take_exits(())
            elif number == signal.SIGINT and not self._core.is_shutting_down:
                logger.info("%s: ending every daemon; once more leaves them running", name)
                self._feed(events.ShutdownSignalled())
            elif number == signal.SIGHUP and self._is_service:
                # Where there is a terminal, its end is that of the supervisor.
                logger.info("%s: reading the configuration again", name)
                self._reload(None, dry_run=False)
            else:
                self._performer.exit_reason = f"{name}; the daemons run on"

    def _pat_watchdog(self) -> None:
        now = time.monotonic()
        if self._watchdog_seconds is None or now < self._watchdog_at:
            return
        self._watchdog_at = now + self._watchdog_seconds
        # Whether clients still find us: a loop that turns for nobody is not alive.
        if self._premises.is_ours(self._paths.supervisor_socket):
            self._notifier.watchdog()
        else:
            logger.error("%s is not our socket any more", self._paths.supervisor_socket)


# --- the command ----------------------------------------------------------------------------------


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="spawny-supervisor",
        description="Supervise your spawny daemons. There is one supervisor per user; the first"
        " script that needs one starts it, so that you seldom have to.",
        epilog="Ctrl-C ends every daemon, then the supervisor. SIGTERM and SIGHUP end the"
        " supervisor alone: the daemons serve on, and the next supervisor takes them up again."
        " With --service SIGHUP reads the configuration again."
        " Exit codes: 0 ended as asked or for want of work, 1 an error, 2 wrong usage,"
        f" {EXIT_ALREADY_RUNNING} another supervisor serves already.",
    )
    parser.add_argument(
        "--service",
        action="store_true",
        help="run until told otherwise; without it, end after --idle-exit seconds with no daemon"
        " to supervise and no request",
    )
    parser.add_argument(
        "--idle-exit",
        type=float,
        metavar="SECONDS",
        help="instead of idle_exit_seconds in the configuration, by default 600",
    )
    parser.add_argument(
        "--ready-fd",
        type=int,
        metavar="N",
        help="write READY and a newline to this descriptor when serving, then close it",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="see whether it could serve, and print its version: what an upgrade does first",
    )
    # What it takes over, where it has taken the place of another version.
    parser.add_argument("--handover-fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument(
        "--log-level",
        default="info",
        choices=("debug", "info", "warning", "error"),
        help="what to write to stderr (default: info)",
    )
    parser.add_argument("--version", action="version", version=f"spawny {__version__}")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, *, boot: str = BOOT) -> int:
    """Run a supervisor; answers the exit code."""
    options = _arguments(arguments)
    if os.environ.pop(DAEMON_VARIABLE, None) is not None:
        # Started by hand from within a daemon, it would end with that one. What the system shows of
        # an environment is that of the exec.
        os.execve(sys.executable, sys.orig_argv, os.environ)
    logging.basicConfig(
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    try:
        return _check(options) if options.check else _serve(options, boot)
    except singleton.AlreadyRunning as error:
        logger.error("%s", error)
        return EXIT_ALREADY_RUNNING
    except (SpawnyError, OSError, ValueError) as error:
        logger.error("%s", error)
        return 1


def _check(options: argparse.Namespace) -> int:
    """Everything is imported by now; the figures are all else that could keep it from serving."""
    declared.read(locate().config_file, options.idle_exit)
    sys.stdout.write(f"{__version__}\n")
    return 0


def _serve(options: argparse.Namespace, boot: str) -> int:
    paths = locate()
    figures, daemons = declared.read(paths.config_file, options.idle_exit)
    for directory in (paths.runtime, paths.daemons, paths.journal, paths.state, paths.logs):
        make_private(directory)
    for path in (paths.supervisor_socket, paths.link_socket):
        check_socket_path(path)
    before = None if options.handover_fd is None else handover.read(options.handover_fd)
    with ExitStack() as stack:
        # Of the two sockets the one that no service manager ever holds open for us.
        held_fd = None if before is None else before.lock_fd
        lock_fd = stack.enter_context(
            singleton.hold(paths.supervisor_lock, paths.link_socket, held_fd=held_fd)
        )
        supervisor = Supervisor(
            paths,
            figures,
            is_service=options.service,
            listener=_passed_listener(paths) if before is None else None,
            boot=boot,
            lock_fd=lock_fd,
            arguments=_successors(options),
            before=before,
            idle_exit=options.idle_exit,
            descriptor_limit=descriptors.raise_limit(),
        )
        stack.callback(supervisor.close)
        supervisor.adopt()
        supervisor.configure(daemons)
        logger.info("serving at %s, pid %d", paths.supervisor_socket, os.getpid())
        if options.ready_fd is not None:
            _tell_ready(options.ready_fd)
        reason = supervisor.serve()
        logger.info("ending: %s", reason)
    return 0


def _successors(options: argparse.Namespace) -> list[str]:
    """The arguments of whoever takes over."""
    arguments = ["--log-level", options.log_level]
    if options.service:
        arguments.append("--service")
    if options.idle_exit is not None:
        arguments += ["--idle-exit", str(options.idle_exit)]
    return arguments


def _inherited(fd: int) -> socket.socket:
    listener = socket.socket(fileno=fd)
    listener.setblocking(False)
    return listener


def _passed_listener(paths: Paths) -> socket.socket | None:
    """The listening socket that the service manager has bound for us, if it has."""
    fd = notify.listen_fds(os.environ).get(_CONTROL_SOCKET)
    if fd is None:
        return None
    listener = socket.socket(fileno=fd)
    if Path(os.fsdecode(listener.getsockname())) != paths.supervisor_socket:
        raise InvalidRequest(
            f"the service manager listens at {listener.getsockname()}, but clients look for"
            f" {paths.supervisor_socket}"
        )
    listener.setblocking(False)
    return listener


def _tell_ready(fd: int) -> None:
    try:
        os.write(fd, b"READY\n")
        os.close(fd)
    except OSError as error:  # whoever waited for it has gone
        logger.warning("nobody waits at descriptor %d: %s", fd, error)
