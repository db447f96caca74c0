"""What must be so whenever nothing happens: processes, sockets, journal and `ps` are one."""

import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import psutil

import spawny
from spawny.control import DaemonStatus, ZygoteStatus
from spawny.paths import Paths

# Only what is wrong takes so long to settle. A daemon that dies often waits for its restart.
PATIENCE_SECONDS = 40.0

# Of a supervisor, for each daemon: its link and its pidfd.
DESCRIPTORS_PER_DAEMON = 2


class Invariants:
    """Of everything that runs under one SPAWNY_HOME.

    Made while a supervisor runs and no daemon: the descriptors that it has then are those that it
    always has.
    """

    def __init__(self, home: Path, paths: Paths) -> None:
        self._home = home
        self._paths = paths
        self._seen: set[int] = set()
        supervisor = spawny.connect()
        assert supervisor.list() == []
        self._fixed = min(_descriptors(supervisor.version().pid) for _ in range(20))

    def settle(self, ours: Collection[int]) -> list[str]:
        """What is wrong, looked at until nothing is; `ours` are the processes that are no part of
        it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                found = self.problems(ours)
            except spawny.SupervisorUnavailable as error:
                found = [f"no supervisor can be had: {error}"]
            if not found or time.monotonic() > deadline:
                return found

    def problems(self, ours: Collection[int]) -> list[str]:
        """What is wrong now; something may just be on its way."""
        supervisor = spawny.connect()
        pid = supervisor.version().pid
        listed = supervisor.list()
        self._seen |= {pid, *(each.pid for each in listed if each.pid)}
        return [
            *(f"daemon {each.name} is {each.state}" for each in listed if not _is_settled(each)),
            *self._stray_processes(pid, listed, ours),
            *self._zombies(),
            *self._files(supervisor, listed),
            *self._leaks(pid, listed, supervisor.zygotes()),
        ]

    def _stray_processes(
        self, supervisor: int, listed: list[DaemonStatus], ours: Collection[int]
    ) -> list[str]:
        known = {supervisor, *(each.pid for each in listed), *ours, os.getpid()}
        return [
            f"process {each.pid} is nobody's: {_command(each)}"
            for each in psutil.process_iter()
            if each.pid not in known and self._belongs(each) and known.isdisjoint(_ancestors(each))
        ]

    def _belongs(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("SPAWNY_HOME") == str(self._home) or any(
                str(self._home) in each for each in process.cmdline()
            )
        except psutil.Error:
            return False

    def _zombies(self) -> list[str]:
        found = []
        for pid in self._seen:
            try:
                stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if stat[0] == "Z":
                found.append(f"process {pid} is a zombie, its parent is {stat[1]}")
        return found

    def _files(self, supervisor: spawny.Supervisor, listed: list[DaemonStatus]) -> list[str]:
        sockets = {each.name for each in self._paths.daemons.iterdir()}
        journals = {each.name for each in self._paths.journal.iterdir()}
        living = {f"{each.name}.sock" for each in listed if each.pid}
        known = {f"{each.name}.json" for each in listed}
        return [
            *(f"socket {name} has no daemon" for name in sockets - living),
            *(f"socket {name} is missing" for name in living - sockets),
            *(
                f"file {name} is in the journal"
                for name in journals - known
                if not _is_known(supervisor, name)
            ),
            *(f"file {name} is missing in the journal" for name in known - journals),
        ]

    def _leaks(
        self, supervisor: int, listed: list[DaemonStatus], zygotes: list[ZygoteStatus]
    ) -> list[str]:
        living = sum(each.pid is not None for each in listed)
        # The socket of each; one that has just gone may be missing, which is no leak.
        expected = self._fixed + DESCRIPTORS_PER_DAEMON * living
        expected += sum(each.state != "unfit" for each in zygotes)
        count = _descriptors(supervisor)
        if count <= expected:
            return []
        return [
            f"the supervisor has {count} descriptors; {expected} with {living} daemons:"
            f" {_links(supervisor)}"
        ]


def _is_known(supervisor: spawny.Supervisor, file: str) -> bool:
    """Whether a file of the journal is of a daemon that has ended and is remembered, or the
    definition of one that is known."""
    with suppress(spawny.DaemonNotFound, spawny.InvalidRequest):
        supervisor.status(file.rpartition(".")[0].partition("~")[0])
        return True
    return False


def _is_settled(status: DaemonStatus) -> bool:
    return status.state in ("ready", "failed")


def _descriptors(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def _links(pid: int) -> str:
    found = []
    for each in sorted(Path(f"/proc/{pid}/fd").iterdir(), key=lambda path: int(path.name)):
        with suppress(OSError):
            found.append(f"{each.name}={os.readlink(each)}")
    return " ".join(found)


def _ancestors(process: psutil.Process) -> list[int]:
    try:
        return [each.pid for each in process.parents() if each.pid > 1]
    except psutil.Error:
        return []


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:200]
    except psutil.Error:
        return "?"
