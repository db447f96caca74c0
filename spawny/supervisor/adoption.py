"""What an earlier supervisor left behind: journal files, living daemons, stale sockets."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..kernel import wire
from ..paths import Paths
from . import proctable
from .events import JournalRead
from .journal import Journal
from .values import Identity

logger = logging.getLogger(__name__)


def read_journal(journal: Journal, paths: Paths) -> Iterator[JournalRead]:
    """Every daemon in the journal, and what has become of it."""
    for entry in journal.read():
        identity, left = entry.identity, None
        if identity is not None and not proctable.is_alive(identity):
            identity, left = None, identity
        yield JournalRead(
            request=entry.request,
            interpreter=entry.interpreter,
            state=entry.state,
            restarts=entry.restarts,
            reason=entry.reason,
            restore=_if_saved(paths, entry.request.name, entry.restore),
            identity=identity,
            endings=entry.endings,
            age_seconds=_age_seconds(identity, entry.began_at) if identity else 0.0,
            # A daemon that ends as it should removes its socket.
            crashed=os.path.lexists(paths.call_socket(entry.request.name)),
            left=left if left and left.boot_id == proctable.boot_id() else None,
        )


def _age_seconds(identity: Identity, began_at: float | None) -> float:
    """Of the daemon. Its process may be older: a zygote has the next ones ready."""
    age = proctable.age_seconds(identity)
    return age if began_at is None else max(0.0, min(age, time.monotonic() - began_at))


def _if_saved(paths: Paths, name: str, token: str) -> str:
    """This token, where a state is kept under it (see kernel/state.py). The order to keep one may
    be all that the earlier supervisor has seen of it."""
    if not token:
        return ""
    try:
        with open(paths.runtime / "saved" / name, "rb") as file:
            return token if file.readline(256).strip() == token.encode() else ""
    except OSError:
        return ""


def poke_daemons(paths: Paths, living: frozenset[str]) -> None:
    """Ask every daemon that listens to phone home now, and remove sockets that nobody serves."""
    # Also those of daemons that were killed while they made theirs anew (see kernel/listener.py).
    for path in sorted(paths.daemons.glob("*.soc[k~]")):
        try:
            _poke(path)
        except OSError as error:
            if error.errno == errno.ECONNREFUSED and path.stem not in living:
                _remove(path)
            else:
                # It phones home by itself, in a few seconds.
                logger.info("could not poke %s: %s", path, error)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # a directory, say: whoever made it may keep it
        logger.warning("cannot remove %s: %s", path, error)
    else:
        logger.info("removed the stale socket %s", path)


def _poke(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as poker:
        poker.setblocking(False)  # one that does not accept (it is stopped) is not waited for
        poker.connect(os.fspath(path))
        with suppress(BrokenPipeError):
            poker.send(wire.frame(wire.POKE), socket.MSG_NOSIGNAL)
