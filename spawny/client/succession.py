"""What becomes of a session at its daemon's end, and how it gets to the next one of that name.

One rule: a number that one run of the daemon gave to an object never reaches another run, where it
is another object's. So the end of a run is dealt with once, before anything else of the session
goes on, and takes the numbers out of all its references.
"""

from __future__ import annotations

import threading

from ..errors import (
    DaemonDied,
    DaemonNotFound,
    InvalidRequest,
    SpawnyError,
    StaleReference,
    SupervisorUnavailable,
)
from .outcomes import operation_name
from .proxy import is_lasting
from .references import Epitaph, run_of
from .results import NotRun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .attachment import Attachment
    from .channel import Channel, ChannelClosed
    from .proxy import Reference
    from .references import References, Run
    from .session import Session

# A daemon that is restarted over and over may end each time before it can be attached to.
ATTACH_TRIES = 20


class Succession:
    """Of the runs of one daemon, as one session sees them."""

    def __init__(self, session: Session, attachment: Attachment, references: References) -> None:
        self._session = session
        self._attachment = attachment
        self._references = references
        self._may_come_back = False
        self._make_locks()

    def _make_locks(self) -> None:
        self._coming_back = threading.Lock()
        # Held while an end is dealt with. Reentrant, as the program's code may run by that.
        self._ending = threading.RLock()

    def forked(self) -> None:
        """In a forked child: whoever held these locks is not there."""
        self._make_locks()

    # --- the end of a run ---

    def ended(
        self,
        reason: str,
        run: Run | None,
        *,
        may_come_back: bool = False,
        comes_back: bool = False,
        death: DaemonDied | None = None,
    ) -> None:
        """The daemon has ended, in this `run`: nothing that it held exists any more. Its root and
        what that has by name may come back, in the next daemon of this name; what is yet to be sent
        need not fail if it `comes_back`."""
        session = self._session
        with self._ending:
            if session.gone is not None:
                return
            if run is not None and run != run_of(self._attachment.settled):
                return  # told late: there is another by now, which has not ended
            # First: whatever breaks off the rest, no number is left to mean another.
            self._references.bury(Epitaph(session.name, session.started, reason))
            self._may_come_back = may_come_back
            session.gone = reason
            error = death or DaemonDied(f"daemon {session.name!r} {reason}")
            session.let_go(error, comes_back=comes_back)

    def died(self, kind: int | None, request: tuple[Any, ...], run: Run | None) -> DaemonDied:
        """It has, with this request under way: the error that says how."""
        from .obituary import daemon_died

        error = daemon_died(self._session, operation_name(kind, request), run=run)
        self.ended(f"is gone: {error}", run, may_come_back=True, death=error)
        return error

    def not_run(
        self,
        error: NotRun | ChannelClosed,
        kind: int,
        request: tuple[Any, ...],
        is_nested: bool,
        run: Run | None,
    ) -> BaseException | None:
        """The daemon has ended before it began this request: see `Session.broken`."""
        name = self._session.name
        what = operation_name(kind, request)
        may_be_made = bool(request) and is_lasting(request[0])
        if isinstance(error, NotRun):
            reason, comes_back = error.reason, error.comes_back
        else:
            reason, comes_back = "has ended", may_be_made
        self.ended(reason, run, may_come_back=True, comes_back=comes_back)
        try:
            if is_nested or not may_be_made:
                if isinstance(error, NotRun) and error.comes_back:
                    raise StaleReference(
                        f"daemon {name!r}, where this object lived, {error.reason}; {what} was"
                        " not run"
                    )
                raise DaemonNotFound
            self.come_back(request)
        except (StaleReference, InvalidRequest) as problem:
            return problem
        except (SpawnyError, OSError):  # there is none, or none that can be reached
            from .obituary import daemon_died

            return daemon_died(self._session, what, "; it was not run", run)
        return None

    # --- the next run ---

    def renewed(self, request: tuple[Any, ...], reference: Reference | None) -> tuple[Any, ...]:
        """The request as it is for the next run; raises `StaleReference` where it is for nothing
        there."""
        if reference is None:
            return request
        with self._ending:  # what ends has ended by then
            pass
        if reference.session is not self._session:
            reference.session.come_back(request)
        return (reference.oid, *request[1:])

    def come_back(self, request: tuple[Any, ...]) -> None:
        """Attach anew, to the daemon that runs under this name now, if any, and where the request
        is for its root or something that this has by name."""
        session = self._session
        if not is_lasting(request[0]) or not self._may_come_back:
            raise StaleReference(
                f"daemon {session.name!r}, where this object lived, {session.gone}"
            )
        from .launch import Unanswered, reach

        with self._coming_back:
            for left in reversed(range(ATTACH_TRIES)):
                if session.gone is None:
                    return
                try:
                    self._attach_anew(reach)
                except SupervisorUnavailable:
                    raise
                except (ConnectionError, FileNotFoundError, Unanswered) as error:
                    # It has ended again meanwhile, and maybe between two connections of ours.
                    if not left:
                        raise DaemonNotFound(
                            f"daemon {session.name!r} ends again and again; see: spawny logs"
                            f" {session.name}"
                        ) from error

    def _attach_anew(self, reach: Callable[[Session], Channel]) -> None:
        session, before = self._session, self._attachment.started
        with self._ending:  # or what is new would be cleared away with what was
            self._attachment.begin_anew()
        channel = reach(session)
        now = self._attachment.started
        if now["digest"] != before["digest"]:
            channel.close()
            self._attachment.started = before
            raise StaleReference(
                f"daemon {session.name!r} was replaced by one of another definition"
                f" ({now['summary']}): attach to it anew"
            )
        session.resume(channel)
