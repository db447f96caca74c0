"""Functions *about* a proxy, whose attributes all belong to the remote object."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..errors import SpawnyError
from ..kernel import wire
from .arguments import with_items
from .channel import ChannelClosed, errand
from .proxy import (
    MethodProxy,
    ObjectProxy,
    bound_method,
    call_request,
    checked_proxy,
    reference_of,
)
from .serialize import Unsendable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..control import DaemonStatus
    from .session import Session

# After a daemon agreed to end: its own clean-up, then the supervisor's signals.
END_SECONDS = 10.0


def value(proxy: Any) -> Any:
    """A copy, here, of the object behind a proxy; anything else is given back as it is.

    Raises `SerializationError` where it cannot be copied.
    """
    if not issubclass(type(proxy), ObjectProxy):
        return proxy
    if type(proxy) is MethodProxy:
        proxy = bound_method(proxy)
    reference = reference_of(proxy)
    return reference.ask(wire.GETVALUE)


def ref(callable_proxy: Any) -> Callable[..., Any]:
    """A function that calls as the proxy does, but leaves the result in its daemon, as a proxy."""
    proxy = checked_proxy(callable_proxy)

    def call(*args: Any, **kwargs: Any) -> Any:
        reference = reference_of(proxy)
        request = reference.session.request
        try:
            return request(*call_request(proxy, args, kwargs), wire.KEEP, reference)
        except Unsendable as refused:
            args, kwargs = with_items(refused, args, kwargs)
        return request(*call_request(proxy, args, kwargs), wire.KEEP, reference)

    return call


def oneway(callable_proxy: Any) -> Callable[..., None]:
    """A function that calls as the proxy does, but returns at once: nobody gets the result.

    Such calls are carried out in order, and before what this thread asks the daemon for later. An
    exception goes to the daemon's log.
    """
    proxy = checked_proxy(callable_proxy)

    def call(*args: Any, **kwargs: Any) -> None:
        reference = reference_of(proxy)
        reference.session.send_oneway(*call_request(proxy, args, kwargs), reference)

    return call


def daemon(proxy: Any) -> Daemon:
    """The daemon that the object behind this proxy lives in."""
    return Daemon(checked_proxy(proxy))


class Daemon:
    """What can be known and done about the daemon of a proxy."""

    def __init__(self, proxy: ObjectProxy) -> None:
        self._proxy = proxy  # keeps the daemon alive
        started = reference_of(proxy).session.started
        self.name: str = started["name"]
        self.pid: int = started["pid"]
        self.python: str = started["executable"]

    def __repr__(self) -> str:
        return f"<spawny daemon {self.name!r}, pid {self.pid}, {self.python}>"

    def status(self) -> DaemonStatus:
        """Its status as `spawny ps` shows it."""
        from .supervisor import connect

        return connect().status(self.name)

    def stop(self) -> None:
        """End it: asked, then SIGTERM, then SIGKILL. Returns when it is gone."""
        from .supervisor import connect

        connect().stop(self.name)

    def restart(self) -> None:
        """End it and start it anew from its own definition; references to objects become stale.

        Returns once it is ready; raises `DaemonStartError` where the definition raises.
        """
        from .supervisor import connect

        connect().restart(self.name)

    def interrupt(self) -> bool:
        """Raise KeyboardInterrupt in the call that runs there; was there one?"""
        from .supervisor import connect

        return connect().interrupt(self.name)

    def logs(self, follow: bool = False) -> Iterator[str]:
        """The lines of its log."""
        from .supervisor import connect

        return connect().logs(self.name, follow=follow)


def terminate(proxy: ObjectProxy) -> None:
    """End the daemon of this proxy, whoever else uses it; what `p.terminate_daemon()` does."""
    session = reference_of(proxy).session
    if session.gone is not None:
        return
    from .asker import asker

    end_daemon(session, f"terminate_daemon() was called by {asker()}")


def end_daemon(session: Session, reason: str) -> None:
    """Ask the daemon itself, then whoever can do more; returns when its process is gone."""
    from .ending import wait_gone

    pid = session.started["pid"]
    with wait_gone(pid) as wait:
        try:
            errand(session.path, wire.TERMINATE, reason)
            asked = True
        except (OSError, ChannelClosed):
            asked = False  # gone already, stopped, or C code in it keeps the GIL
        session.ended(f"was ended: {reason}")
        if asked and wait(END_SECONDS):
            return
        try:
            from .supervisor import connect

            connect(start=False).stop(session.name)
        except (SpawnyError, OSError):
            if not wait(0):
                raise
