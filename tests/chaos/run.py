"""Faults under load, each undone and looked at before the next: `make chaos`, or

    python -m tests.chaos.run --seconds 300 --seed 1

Eight clients do this and that with daemons; one fault after the other is done to them, to daemons
and to the supervisor, in an order that the seed gives. After each all clients pause, and what is
left must be whole: see `invariants.py` and `ledger.py`. What happens between the operations of
several processes no seed can repeat; the order of the faults and what each client tries, it does.
"""

import argparse
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import spawny
from spawny.paths import locate
from tests.chaos import ledger
from tests.chaos.faults import CALLS, FAULTS, HARMLESS_TO_CALLS, Undo, World
from tests.chaos.invariants import Invariants
from tests.conftest import private_home

REPOSITORY = Path(__file__).parents[2]

CLIENTS = 8

# So much happens before a fault, and while it lasts.
OPERATIONS = 40

# A fault that lets nothing happen is undone after so long; a listing is given 10 s to be answered.
FAULT_SECONDS = 1.5

# Without an operation for so long a client hangs: its own limits are shorter.
PATIENCE_SECONDS = 90.0

DISK_BYTES = 64 * 1024 * 1024


class Broken(AssertionError):
    """Something is not as it must be."""


class Client:
    """A process of `load.py`."""

    def __init__(self, index: int, seed: str, directory: Path, told: queue.Queue[Any]) -> None:
        self.index = index
        self.is_paused = True
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by end()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.load", str(index), seed, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ,
        )
        self._told = told
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with suppress(ValueError):  # cut by a SIGKILL
                self._told.put((self, json.loads(line)))
        self._told.put((self, {"op": "gone"}))

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()

    def stacks(self) -> str:
        """What it does, where it hangs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR1)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-3000:]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._errors.close()


@dataclass
class Run:
    """One run: its clients, and what it has counted."""

    seed: int
    directory: Path
    invariants: Invariants
    is_small: bool
    kinds: Sequence[Callable[[World], Undo]] = FAULTS
    told: queue.Queue[Any] = field(default_factory=queue.Queue)
    clients: list[Client] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    samples: dict[tuple[str, str, str], str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    fault: Callable[[World], Undo] | None = None
    replaced: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.clients = [self._client(index) for index in range(CLIENTS)]

    def _client(self, index: int) -> Client:
        seed = f"{self.seed}-{index}-{self.replaced}"
        return Client(index, seed, self.directory, self.told)

    def schedule(self) -> Iterator[Callable[[World], Undo]]:
        """Each fault in turn, shuffled anew each time round."""
        while True:
            faults = list(self.kinds)
            self.rng.shuffle(faults)
            yield from faults

    def step(self, fault: Callable[[World], Undo]) -> None:
        """A fault under load, its undoing, and a look at what is left."""
        self.fault = fault
        self.faults[fault.__name__] += 1
        for each in self.clients:
            each.is_paused = False
            each.tell("go")
        self.await_operations(OPERATIONS, PATIENCE_SECONDS)
        undo = fault(self.world())
        try:
            self.await_operations(OPERATIONS, FAULT_SECONDS, is_patient=True)
        finally:
            undo()
        self.pause()
        self.check()

    def world(self) -> World:
        supervisor = spawny.connect()
        return World(
            locate(),
            self.directory,
            self.rng,
            supervisor.version().pid,
            {each.name: each.pid for each in supervisor.list() if each.pid is not None},
            [each.process.pid for each in self.clients],
            self.is_small,
        )

    def await_operations(self, count: int, seconds: float, *, is_patient: bool = False) -> None:
        """Until so many operations are done; a fault may keep all of them from being done."""
        deadline = time.monotonic() + seconds
        while count > 0:
            if not self._hear(deadline):
                if not is_patient:
                    self._hang(self.clients)
                return
            count -= 1

    def pause(self) -> None:
        """All clients have let go of everything; those that were killed have successors."""
        for each in self.clients:
            each.tell("pause")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not all(each.is_paused for each in self.clients):
            if not self._hear(deadline):
                self._hang([each for each in self.clients if not each.is_paused])
                return

    def _hang(self, clients: list[Client]) -> None:
        stacks = "\n".join(each.stacks() for each in clients)
        raise Broken(f"clients {[each.index for each in clients]} hang:\n{stacks}")

    def _hear(self, deadline: float) -> bool:
        """Take up what one client tells; False when none does."""
        try:
            client, told = self.told.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return False
        if told["op"] == "paused":
            client.is_paused = True
        elif told["op"] == "gone":
            self._replace(client)
        else:
            self._count(told)
        return True

    def _replace(self, client: Client) -> None:
        if client not in self.clients:
            return
        if client.process.wait() != -signal.SIGKILL:
            self.wrong.append(f"client {client.index} ended: {client.stacks()}")
        client.end()
        self.replaced += 1
        self.clients[client.index] = self._client(client.index)

    def _count(self, told: dict[str, Any]) -> None:
        self.operations[told["op"]] += 1
        error = told["error"]
        if error is None:
            return
        self.errors[f"{told['op']}: {error}"] += 1
        fault = self.fault.__name__ if self.fault else ""
        self.samples.setdefault((told["op"], error, fault), told["text"])
        if not told["is_typed"]:
            self.wrong.append(f"{told['op']} raised {error}, which is none of ours: {told['text']}")
        elif told["op"] in CALLS and self.fault in HARMLESS_TO_CALLS:
            self.wrong.append(f"{told['op']} failed with {error}: {told['text']}")

    def check(self) -> None:
        """What must be so now; raises `Broken` where it is not."""
        found = [*self.wrong, *self.invariants.settle([each.process.pid for each in self.clients])]
        found += ledger.problems(self.directory)
        if found:
            raise Broken("\n".join(found[:20]))

    def end(self) -> None:
        for each in self.clients:
            each.end()

    def summary(self) -> str:
        sent, acknowledged = ledger.count(self.directory)
        operations = sum(self.operations.values())
        lines = [
            f"seed {self.seed}: {sum(self.faults.values())} faults, {operations} operations,"
            f" {sent} calls, {acknowledged} acknowledged",
            "faults: " + _counts(self.faults),
            "operations: " + _counts(self.operations),
            "failed as they should: " + (_counts(self.errors) or "none"),
            *(
                f"  {op} with {error} in {fault}: {text.splitlines()[0][:200]}"
                for (op, error, fault), text in sorted(self.samples.items())
            ),
        ]
        return "\n".join(lines)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))


@contextmanager
def small_disk(home: Path) -> Iterator[bool]:
    """A file system of its own for `home`, small enough to be filled, where we may make one."""
    size = f"size={DISK_BYTES},mode=0700"
    mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(home)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(home)], check=False)


def chaos(
    seed: int,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    kinds: Sequence[Callable[[World], Undo]] = FAULTS,
) -> str:
    """Run for so long, or so many steps; what was done, in words. Raises `Broken`."""
    began = time.monotonic()
    with ExitStack() as stack:
        home = stack.enter_context(private_home())
        is_small = stack.enter_context(small_disk(home))
        directory = Path(tempfile.mkdtemp(prefix="chaos-"))
        stack.callback(shutil.rmtree, directory)
        stack.enter_context(_environ(home, directory))
        run = Run(seed, directory, Invariants(home, locate()), is_small, kinds)
        stack.callback(_shut_down)
        stack.callback(run.end)
        names = ",".join(each.__name__ for each in kinds)
        only = "" if len(kinds) == len(FAULTS) else f" --only {names}"
        for number, fault in enumerate(run.schedule()):
            if number == steps or (seconds is not None and time.monotonic() - began > seconds):
                break
            try:
                run.step(fault)
            except Exception as error:
                error.add_note(
                    f"step {number}: {fault.__name__}\n{run.summary()}\nreplay: python -m"
                    f" tests.chaos.run --seed {seed} --steps {number + 1}"
                    f"{only}\n{_log_tail(home)}"
                )
                raise
        return run.summary()


@contextmanager
def _environ(home: Path, directory: Path) -> Iterator[None]:
    """What all clients are started with, and by them all daemons."""
    before = dict(os.environ)
    os.environ["SPAWNY_HOME"] = str(home)
    os.environ["CHAOS_LEDGER"] = str(directory / ledger.DONE)
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _shut_down() -> None:
    with suppress(spawny.SpawnyError):
        spawny.connect().shutdown()


def _log_tail(home: Path) -> str:
    with suppress(OSError):
        log = home / "state" / "logs" / "_supervisor.log"
        return "the supervisor's log:\n" + log.read_text(errors="replace")[-3000:]
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--only", help="names of faults, with commas between them")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else [each.__name__ for each in FAULTS]
    kinds = [each for each in FAULTS if each.__name__ in wanted]
    print(f"seed {options.seed}", flush=True)
    seconds = 300.0 if options.seconds is None and options.steps is None else options.seconds
    print(chaos(options.seed, seconds=seconds, steps=options.steps, kinds=kinds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
