"""Signalling a daemon together with all that came out of it.

One rule: a signal goes only to the very process that is meant, by its pidfd; never to a pid or a
process group, which may since be another's. Where the system has no pidfd the process is looked at
right before.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Collection, Iterable
from signal import Signals

from . import proctable
from .values import Identity

# What is killed may have forked a moment before: looked for again until nothing new turns up. A
# process that forks faster than it can be looked for is left to the next sweep.
_MOST_LOOKS = 20

logger = logging.getLogger(__name__)


class Families:
    """The processes that came out of each daemon.

    Args:
        has_pidfd: False takes the portable way.
    """

    def __init__(self, *, has_pidfd: bool) -> None:
        self._has_pidfd = has_pidfd
        self._snapshots: dict[Identity, set[Identity]] = {}

    def snapshot(self, leader: Identity, mark: str, spared: Collection[Identity]) -> None:
        """Remember who came out of it, as long as that can still be told of everyone."""
        found = proctable.family(leader, mark, spared)
        self._snapshots.setdefault(leader, set()).update(found)

    def forget(self, leader: Identity) -> None:
        self._snapshots.pop(leader, None)

    def signal(
        self, leader: Identity, signal_name: str, mark: str, spared: Collection[Identity]
    ) -> None:
        """Signal a daemon's process group; SIGKILL all that came out of it.

        `spared` are other daemons, which are nobody's family.
        """
        if Signals[signal_name] is signal.SIGKILL:
            self._kill(leader, mark, spared, {leader})
        else:
            group = proctable.group_members(leader)
            self._send_all((each for each in group if each not in spared), Signals[signal_name])

    def sweep(
        self, leader: Identity, signal_name: str, mark: str, spared: Collection[Identity]
    ) -> set[Identity]:
        """Signal what a dead daemon left; who that is."""
        if Signals[signal_name] is signal.SIGKILL:
            found = self._kill(leader, mark, spared, set())
        else:
            found = self._find(leader, mark, spared)
            self._send_all(found, Signals[signal_name])
        return found

    def _find(self, leader: Identity, mark: str, spared: Collection[Identity]) -> set[Identity]:
        remembered = filter(proctable.is_alive, self._snapshots.get(leader, ()))
        found = set(remembered).union(proctable.family(leader, mark, spared)).difference(spared)
        return {each for each in found if each.pid not in (1, os.getpid())}

    def _kill(
        self, leader: Identity, mark: str, spared: Collection[Identity], first: set[Identity]
    ) -> set[Identity]:
        killed: set[Identity] = set()
        found = first
        for _ in range(_MOST_LOOKS):
            found = found | self._find(leader, mark, spared)
            if not found - killed:
                break
            self._send_all(found - killed, signal.SIGKILL)
            killed |= found
        return killed

    def _send_all(self, processes: Iterable[Identity], number: Signals) -> None:
        for each in processes:
            self._send(each, number)
            if number is not signal.SIGKILL:
                # A stopped process gets to see it only when it goes on.
                self._send(each, signal.SIGCONT)

    def _send(self, identity: Identity, number: Signals) -> None:
        """Signal one process, if it is still that one."""
        # Nothing that a daemon says of itself, and no mistake here, may ever lead to these.
        if identity.pid in (1, os.getpid()):
            logger.error("process %d was not sent %s: it is no daemon's", identity.pid, number.name)
            return
        try:
            self._send_checked(identity, number)
        except (ProcessLookupError, PermissionError):
            return  # it is gone
        except OSError as error:
            # For want of a descriptor. Whoever has to end gets more than one signal.
            logger.warning("could not send %s to %d: %s", number.name, identity.pid, error)

    def _send_checked(self, identity: Identity, number: Signals) -> None:
        if not self._has_pidfd:
            if proctable.identify(identity.pid) == identity:
                os.kill(identity.pid, number)
            return
        pidfd = os.pidfd_open(identity.pid)
        try:
            # Asked once the pidfd holds the process: no reuse of the pid comes between.
            if proctable.identify(identity.pid) == identity:
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)
