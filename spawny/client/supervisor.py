"""Asking the supervisor: what a client can have of it, a request at a time.

What may be asked twice is, where the supervisor dies meanwhile; what must not be carried out twice
is asked with a token, by which the next supervisor knows it again.
"""

from __future__ import annotations

import builtins
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import fields, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from .. import __version__
from ..control import (
    DaemonStatus,
    Done,
    DumpStacks,
    Event,
    ExplainDaemon,
    Explanation,
    FindDaemon,
    Hello,
    InterruptDaemon,
    ListDaemons,
    Listing,
    ListZygotes,
    Message,
    Reload,
    Reloaded,
    RenewDaemon,
    RestartDaemon,
    Shutdown,
    Stacks,
    StartDaemon,
    Started,
    StopDaemon,
    Upgrade,
    WatchEvents,
    Welcome,
    ZygoteListing,
    ZygoteStatus,
    protocol_of,
)
from ..errors import (
    DaemonNotFound,
    SpawnyError,
    SupervisorUnavailable,
    UpgradeFailed,
    VersionMismatch,
)
from ..paths import Paths, check_name, locate
from . import follow as following
from .asker import asker
from .autostart import ensure_supervisor, python_path, supervisor_listens
from .conversation import (
    ANSWER_SECONDS,
    PING_ID,
    REQUEST_ID,
    ConnectionLost,
    Conversation,
    NotConnected,
)
from .ending import wait_gone

if TYPE_CHECKING:
    from ..definitions import Definition
    from .options import OnDrift
    from .proxy import ObjectProxy

__all__ = ["Supervisor", "connect", "ensure_supervisor"]

# The supervisor itself refuses a start that takes longer than its start_timeout; what comes on top
# is the end of a replaced daemon (8 s by default) and the answer's way.
START_GRACE_SECONDS = 30.0

# A supervisor that dies in a request is a rare accident, dying thrice in one a broken installation.
TRIES = 3

# A supervisor that is asked to end, and leaves its daemons, does so at once.
_END_SECONDS = 10.0

# Before it an upgrade is tried (30 s at most) and waits for what is under way (5 s).
UPGRADE_SECONDS = 45.0

# Some seconds for each broken interpreter that is met while those of declared daemons are sought.
RELOAD_SECONDS = 60.0

Answer = TypeVar("Answer", bound=Message)

# What must not be carried out twice.
_Once = StopDaemon | RestartDaemon | InterruptDaemon | Shutdown


def connect(*, start: bool = True, answer_seconds: float = ANSWER_SECONDS) -> Supervisor:
    """The supervisor of this user, started if it does not run and `start` says so.

    `answer_seconds` is how long it may be silent. Raises `SupervisorUnavailable` when it cannot be
    started, or does not run and may not be.
    """
    supervisor = Supervisor(locate(), start=start, answer_seconds=answer_seconds)
    supervisor.ensure()
    return supervisor


class Supervisor:
    """The supervisor as seen by a client; made by `connect`.

    Every method is safe in any thread. A refusal is raised as the error that it is; every method
    may raise `SupervisorUnavailable`.
    """

    def __init__(
        self, paths: Paths, *, start: bool = True, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self._paths = paths
        self._start = start
        self._answer_seconds = answer_seconds

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held between requests; for symmetry with other connections."""

    def __repr__(self) -> str:
        return f"<spawny supervisor at {self._paths.supervisor_socket}>"

    def ensure(self) -> None:
        """Return once a supervisor serves."""
        if self._start:
            ensure_supervisor(self._paths)
        elif not supervisor_listens(self._paths):
            raise SupervisorUnavailable(f"no supervisor runs at {self._paths.supervisor_socket}")

    def version(self) -> Welcome:
        """Its version, process id and interpreter, whatever protocol it speaks."""
        return self._request(Hello(__version__), Welcome)

    def list(self) -> builtins.list[DaemonStatus]:
        """The status of every daemon, ordered by name."""
        return [*self._request(ListDaemons(), Listing).daemons]

    def status(self, name: str) -> DaemonStatus:
        """The status of one daemon, or how it ended; raises `DaemonNotFound` where none was."""
        found = self._request(ListDaemons(check_name(name)), Listing).daemons
        if not found:
            raise DaemonNotFound(f"there is no daemon {name!r}; spawny ps lists those that run")
        return found[0]

    def zygotes(self) -> builtins.list[ZygoteStatus]:
        """The interpreters that are kept warm to fork daemons from, and what cannot be forked."""
        return [*self._request(ListZygotes(), ZygoteListing).zygotes]

    def why(self, name: str) -> Explanation:
        """Why a daemon is in its state, and how its last processes ended; raises
        `DaemonNotFound` where none was."""
        return self._request(ExplainDaemon(check_name(name)), Explanation)

    def stacks(self, name: str) -> Stacks:
        """What each thread of a daemon does, without stopping it. Where it does not answer within
        3 seconds the `problem` says so. Raises `DaemonNotFound`."""
        return self._request(DumpStacks(check_name(name)), Stacks)

    def attach(self, name: str, on_drift: OnDrift = "warn") -> ObjectProxy:
        """As `spawny.attach`."""
        from .launch import attach  # the whole call channel, which most requests never need

        return attach(name, on_drift)

    def start(self, message: StartDaemon) -> Started:
        """Have a daemon started, or found, as `run_script` and its like do.

        Raises `DaemonStartError`, `DaemonExists`, `InterpreterNotFound`.
        """
        return self._request(message, Started, silence=message.start_timeout + START_GRACE_SECONDS)

    def find(self, name: str, seconds: float) -> Started:
        """The daemon of this name once it can be reached, waited for up to so many seconds where
        it is starting or about to be restarted; raises `DaemonNotFound`."""
        return self._request(FindDaemon(name), Started, silence=seconds)

    def stop(self, name: str) -> str:
        """End a daemon and return how it ended, in words; raises `DaemonNotFound`."""
        request = StopDaemon(check_name(name), asked_by=asker())
        return self._act(request, Done, f"stopping daemon {name!r}").detail

    def restart(self, name: str) -> Started:
        """End a daemon if it runs, and start it anew from its own definition; return once it is
        ready. Raises `DaemonNotFound`, and `DaemonStartError` where the definition raises."""
        request = RestartDaemon(check_name(name), asked_by=asker())
        return self._act(request, Started, f"restarting daemon {name!r}")

    def renew(self, name: str, pid: int, definition: Definition | None = None) -> Started:
        """Have a daemon that has drifted, and is this process, started anew as soon as no call runs
        there, from another definition if one is given; return once it is ready. One that is
        another process by now is left as it is. Raises as `restart`."""
        request = RenewDaemon(check_name(name), asked_by=asker(), pid=pid)
        if definition is not None:
            digest, summary = definition.digest(), definition.summary()
            payload = definition.payload()
            request = replace(request, digest=digest, summary=summary, definition=payload)
        return self._act(request, Started, f"restarting daemon {name!r}")

    def interrupt(self, name: str) -> bool:
        """Raise KeyboardInterrupt in the call that runs there; False where none does."""
        request = InterruptDaemon(check_name(name))
        return bool(self._act(request, Done, f"interrupting daemon {name!r}").detail)

    def shutdown(self, progress: Callable[[str], object] | None = None) -> None:
        """Stop every daemon, then the supervisor; `progress` hears of each step in words."""
        self._act(Shutdown(asked_by=asker()), Done, "shutting down", progress)

    def upgrade(self) -> Welcome:
        """Have the supervisor become the one of this spawny and this interpreter, in place.

        It keeps its process id, its daemons and their calls; other clients notice nothing. Raises
        `UpgradeFailed` with the reason where that does not work, and the one before serves on.
        """
        before = self.version()
        if before.protocol < protocol_of(Upgrade("")):
            self._replace(before)
        else:
            self._become()
        after = self.version()
        if (after.version, after.python) != (__version__, sys.executable):
            raise UpgradeFailed(
                f"the supervisor is still spawny {after.version} of {after.python}; see"
                f" {self._paths.supervisor_log}"
            )
        return after

    def _become(self) -> None:
        request = Upgrade(sys.executable, python_path())
        with closing(self._connected()) as conversation:
            try:
                _checked(conversation.ask(request, UPGRADE_SECONDS), Done)
                conversation.wait_lost(self._answer_seconds)
            except ConnectionLost:
                pass  # the answer with it; who serves now tells how it went

    def _replace(self, before: Welcome) -> None:
        """One that cannot be upgraded yet ends, and leaves its daemons to the next."""
        if before.service:
            raise UpgradeFailed(
                f"the supervisor (spawny {before.version}, a service) is too old to be upgraded in"
                " place: restart the service (systemctl --user restart spawny-supervisor); its"
                " daemons run on"
            )
        with wait_gone(before.pid) as wait:
            os.kill(before.pid, signal.SIGTERM)
            if not wait(_END_SECONDS):
                raise UpgradeFailed(
                    f"the supervisor (pid {before.pid}) has not ended within {_END_SECONDS:g} s"
                )
        ensure_supervisor(self._paths)

    def reload(self, dry_run: bool = False) -> builtins.list[str]:
        """Have the supervisor read its configuration again; what has changed, a line each.

        `dry_run` only tells what would. Raises `InvalidRequest` with all that is wrong with the
        file; then nothing changes.
        """
        return self._request(Reload(dry_run), Reloaded, silence=RELOAD_SECONDS).changes

    def logs(self, name: str, follow: bool = False, lines: int | None = None) -> Iterator[str]:
        """The lines of a daemon's log, which outlives it; with `follow` also those to come.

        `lines` keeps only the last so many of those that are there. Starts no supervisor. Raises
        `DaemonNotFound` when nothing ever ran under this name.
        """
        path = self._log_path(check_name(name))
        if not os.path.exists(path):
            raise DaemonNotFound(
                f"there is no daemon {name!r}, nor a log of an earlier one ({path})"
            )
        return following.follow(path, lines=lines) if follow else iter(following.tail(path, lines))

    def events(self) -> Generator[Event, None, None]:
        """What happens to daemons from now on, until `SupervisorUnavailable` ends it.

        It goes on over an upgrade of the supervisor: an event `upgraded` without a name stands
        where some may be missing.
        """
        stream = self._watch()
        next(stream)  # subscribed when this returns, so that nothing which follows is missed
        return stream

    def _request(
        self, request: Message, answer: type[Answer], *, silence: float | None = None
    ) -> Answer:
        """Ask something that may be asked twice, and so is, when the supervisor dies meanwhile."""
        silence = self._answer_seconds if silence is None else silence
        for tries_left in reversed(range(TRIES)):
            try:
                with closing(Conversation(self._paths, self._answer_seconds)) as conversation:
                    return _checked(conversation.ask(request, silence), answer)
            except VersionMismatch as error:
                raise self._mismatch(request, error) from error
            except (NotConnected, ConnectionLost):
                if not tries_left:
                    raise
            self.ensure()
        raise AssertionError("unreachable: the last try returns or raises")

    def _act(
        self,
        request: _Once,
        answer: type[Answer],
        doing: str,
        progress: Callable[[str], object] | None = None,
    ) -> Answer:
        """Ask something that may take long and must not be done twice."""
        request = replace(request, token=secrets.token_hex(16))
        lost: ConnectionLost | None = None
        for _ in range(TRIES):
            try:
                with closing(self._connected(ensures=lost is None)) as conversation:
                    done = _checked(conversation.ask_patiently(request, progress), answer)
                    if isinstance(request, Shutdown):
                        conversation.wait_lost(self._answer_seconds)
                    return done
            except ConnectionLost as error:
                lost = lost or error
                # After an upgrade somebody serves, and knows what became of the request.
                request = replace(request, again=True)
            except NotConnected:
                # The end of the one before may have met this connection, too.
                if lost is None or not supervisor_listens(self._paths):
                    break
            except VersionMismatch as error:
                if lost is None:
                    raise self._mismatch(request, error) from error
                break
            except SupervisorUnavailable:
                if lost is None:
                    raise
                break
        raise SupervisorUnavailable(
            f"the supervisor ended while {doing}: look at spawny ps, then ask again"
        ) from lost

    def _mismatch(self, request: Message, error: VersionMismatch) -> VersionMismatch:
        """What to raise where the supervisor is too old for this request."""
        if isinstance(request, Hello):
            return error
        there = self.version()
        if there.protocol >= protocol_of(request):
            return error  # it is the answer that was not understood
        return VersionMismatch(
            f"the supervisor (pid {there.pid}) is spawny {there.version}, too old for what this"
            f" spawny {__version__} asks of it ({_needing(request)}): run spawny supervisor upgrade"
        )

    def _connected(self, *, ensures: bool = True) -> Conversation:
        """A conversation that has begun: what is sent then, the supervisor has heard."""
        try:
            return Conversation(self._paths, self._answer_seconds).begun()
        except NotConnected:
            if not ensures:
                raise
            # It ended since it was last seen, perhaps because nobody needed it.
            self.ensure()
            return Conversation(self._paths, self._answer_seconds).begun()

    def _watch(self) -> Generator[Any, None, None]:
        """None when subscribed, then the events; whatever the number of upgrades."""
        is_first = True
        while True:
            is_upgrading = False
            try:
                for event in self._watch_one(is_first):
                    is_upgrading = event is not None and event.kind == "upgrading"
                    yield event
            except ConnectionLost:
                if not is_upgrading:
                    raise
            is_first = False

    def _watch_one(self, is_first: bool) -> Generator[Event | None, None, None]:
        """The events of one supervisor."""
        with closing(self._connected()) as conversation:
            conversation.send(WatchEvents(), REQUEST_ID)
            # Requests are taken in order: whoever answers this knows of the one before.
            conversation.send(Hello(__version__), PING_ID)
            early = []
            while (envelope := conversation.receive(self._answer_seconds)).request_id != PING_ID:
                early.append(envelope.message)
            if is_first:
                yield None
            else:
                there = _checked(envelope.message, Welcome)
                detail = f"spawny {there.version} serves; events in between may be missing"
                yield Event("upgraded", "", time.time(), detail, there.pid)
            yield from (message for message in early if isinstance(message, Event))
            while True:
                message = conversation.receive(None).message
                if isinstance(message, Event):
                    yield message

    def _log_path(self, name: str) -> str:
        # The supervisor may be a service with another XDG_STATE_HOME than this process.
        if supervisor_listens(self._paths):
            try:
                if log := self.status(name).log:
                    return log
            except (DaemonNotFound, SupervisorUnavailable):
                pass
        return os.fspath(self._paths.log_file(name))


def _needing(request: Message) -> str:
    """What of a request an older supervisor does not know, in words."""
    new = [
        each.name
        for each in fields(request)  # type: ignore[arg-type]  # every Message is a dataclass
        if each.metadata.get("since", 1) > 1 and getattr(request, each.name) != each.default
    ]
    return ", ".join([type(request).__name__, *new])


def _checked(message: Message, answer: type[Answer]) -> Answer:
    if not isinstance(message, answer):
        raise SpawnyError(
            f"the supervisor answered {type(message).__name__} instead of {answer.__name__}"
        )
    return message
