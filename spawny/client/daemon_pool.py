"""Daemons of one kind that take the calls of one program, and may take those of others: `pool`.

The one rule: calls are made by the threads of the library's own ThreadPoolExecutor, each of which
has one daemon for as long as the call takes (`workers.py`). So Ctrl-C, which meets the main thread
alone, can come between no two lines that take a daemon and give it back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from ..address import check_name, numbered
from ..errors import CallTimeout, DaemonNotFound
from .launch import ATTACH_SECONDS, attach
from .scope import Scope
from .supervisor import connect
from .workers import Workers

if TYPE_CHECKING:
    from .supervisor import Supervisor

# More than a table may declare: the search ends with the first that there is not.
_MOST = 1000


def pool(name: str) -> DaemonPool:
    """The daemons `name-1`, `name-2` and so on, as one thing to call.

    These are all that run by such a name, and all that `[daemons.NAME]` in `config.toml` declares
    with a `count`, as far as the supervisor has read it. The latter are started where they do not
    run, and load in the background, all at once; what goes wrong then is raised by the calls that
    need them, as `attach` would raise it. Raises `DaemonNotFound` where there is none,
    `InterpreterNotFound` and `DaemonStartError` where there is no interpreter to start or it does
    not come up.
    """
    check_name(name)
    with connect() as supervisor:
        names = _members(name, supervisor)
    if not names:
        raise DaemonNotFound(
            f"there is no pool {name!r}: no daemon '{name}-1' runs, and none is declared; declare"
            f" [daemons.{name}] with a count in config.toml, then run spawny reload"
        )
    return DaemonPool(name, names)


class DaemonPool(ThreadPoolExecutor):
    """Equal daemons; made by `pool`. Safe in any thread.

    A call names an attribute of the root of a daemon, such as `"predict"` or `"model.predict"`. It
    goes to a daemon that is idle; where all run calls of this program it waits in the line, where
    they run calls of others it waits for one of them. A `spawny.timeout` in force holds for it.

    A call whose daemon dies raises `DaemonDied` and is not repeated. A later call that needs the
    daemon starts it anew if it is declared, and raises `DaemonNotFound` if not. Results come back
    as from any call: by value, or as proxies where they cannot be pickled.
    """

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        super().__init__(len(names), "spawny-pool")
        self._name = name
        self._workers = Workers(names, 0, attach)
        self.names = names

    def __repr__(self) -> str:
        return f"<spawny pool {self._name!r} of {len(self.names)}>"

    def call(self, function_name: str, /, *args: Any, **kwargs: Any) -> Any:
        """The result of one call, which Ctrl-C interrupts in its daemon."""
        scope = Scope()
        try:
            with scope:
                future = self.submit(function_name, *args, **kwargs)
            wait((future,), scope.remaining())
            if future.cancel():
                raise CallTimeout(f"a call of the pool {self._name!r} waited too long for a daemon")
            return future.result()
        except BaseException:
            scope.cancel()
            raise

    def submit(self, function_name: str, /, *args: Any, **kwargs: Any) -> Future[Any]:  # type: ignore[override]
        """Have one call made in the background; the future of its result."""
        return super().submit(copy_context().run, _call, self._workers, function_name, args, kwargs)

    def map(  # type: ignore[override]
        self, function_name: str, *iterables: Iterable[Any], timeout: float | None = None
    ) -> Iterator[Any]:
        """The results of the calls with an element of each iterable, in their order; all are
        submitted at once. Raises `TimeoutError` where a result is not there `timeout` seconds after
        this call."""
        return super().map(function_name, *iterables, timeout=timeout)  # type: ignore[arg-type]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As that of any executor, also at the end of `with`; the daemons live on."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        self._workers.close(wait)


def _call(workers: Workers, function_name: str, args: Any, kwargs: Any) -> Any:
    function = attrgetter(function_name)
    with workers.taken() as root:
        return function(root)(*args, **kwargs)


def _members(name: str, supervisor: Supervisor) -> tuple[str, ...]:
    """Those that run, and those that start when they are looked for."""
    states = {each.name: each.state for each in supervisor.list()}
    numbers = re.compile(re.escape(name) + r"-[1-9][0-9]*")
    found = [each for each in states if numbers.fullmatch(each) and states[each] != "failed"]
    # The search is a matter of milliseconds each, since nobody waits here for what they load.
    for each in numbered(name, _MOST):
        if each not in states:
            try:
                supervisor.find(each, ATTACH_SECONDS)
            except DaemonNotFound:
                break
            found.append(each)
    return tuple(sorted(found, key=lambda each: (len(each), each)))
