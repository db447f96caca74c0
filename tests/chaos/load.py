"""A client under test, in a process of its own: it does this and that with daemons, as its seed
says, and tells of each operation in a line of JSON.

    python -m tests.chaos.load INDEX SEED DIRECTORY

Lines on stdin: `go`, `pause` (let go of everything, say so, wait), and their end. What it sends to
daemons and what they acknowledge is written down in DIRECTORY first, see `ledger.py`.
"""

import faulthandler
import gc
import io
import json
import logging
import os
import random
import select
import signal
import sys
from collections.abc import Callable
from typing import Any

import spawny
from spawny.errors import RemoteTraceback, SpawnyError
from tests.chaos.ledger import Log

SHARED = 4

# What a daemon of the run does: it writes down the calls that it carries out.
DAEMON = """
import os
_ledger = os.open(os.environ["CHAOS_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

def record(call, payload=b""):
    os.write(_ledger, (call + "\\n").encode())
    return call, len(payload)

def refuse(call):
    os.write(_ledger, (call + "\\n").encode())
    raise LookupError("as planned")

def wait_for(fifo):
    with open(fifo) as file:
        return file.read()
"""

# Large enough to travel in shared memory.
LARGE_BYTES = 1 << 20


def shared(number: int, **options: Any) -> Any:
    """A daemon that all clients use; whoever finds it gone starts it."""
    return spawny.run_script(
        DAEMON, name=f"shared-{number}", restart="on-failure", output="log", **options
    )


class Load:
    """What one client does."""

    def __init__(self, index: int, rng: random.Random, log: Log) -> None:
        self._index = index
        self._rng = rng
        self._log = log
        self._held: dict[int, Any] = {}
        self._operations: list[tuple[str, int, Callable[[], None]]] = [
            ("call", 12, self._call),
            ("refused", 1, self._refused),
            ("large", 2, self._large),
            ("submit", 3, self._submit),
            ("batch", 3, self._batch),
            ("oneway", 2, self._oneway),
            ("attach", 2, self._attach),
            ("unnamed", 1, self._unnamed),
            ("named", 1, self._named),
            ("list", 1, self._list),
        ]

    def operate(self) -> dict[str, Any]:
        """Do one thing; how that went."""
        names, weights, functions = zip(*self._operations, strict=True)
        (place,) = self._rng.choices(range(len(names)), weights)
        told: dict[str, Any] = {"op": names[place], "error": None}
        try:
            functions[place]()
        except BaseException as error:
            told["error"] = type(error).__name__
            told["text"] = str(error)[:600]
            told["is_typed"] = isinstance(error, SpawnyError) or isinstance(
                error.__cause__, RemoteTraceback
            )
            self._held.clear()
        return told

    def let_go(self) -> None:
        self._held.clear()
        gc.collect()

    def _module(self) -> Any:
        number = self._rng.randrange(SHARED)
        if number not in self._held:
            self._held[number] = shared(number)
        return self._held[number]

    def _call(self) -> None:
        module = self._module()
        call = self._log.sent()
        if module.record(call) == (call, 0):
            self._log.acknowledged(call)

    def _refused(self) -> None:
        module = self._module()
        call = self._log.sent()
        try:
            module.refuse(call)
        except LookupError as error:
            if not isinstance(error, SpawnyError):
                self._log.acknowledged(call)
                return
            raise

    def _large(self) -> None:
        module = self._module()
        call = self._log.sent()
        if module.record(call, bytearray(LARGE_BYTES)) == (call, LARGE_BYTES):
            self._log.acknowledged(call)

    def _submit(self) -> None:
        record = self._module().record
        calls = [self._log.sent() for _ in range(5)]
        futures = [(call, spawny.submit(record, call)) for call in calls]
        self._collect(futures)

    def _batch(self) -> None:
        record = self._module().record
        calls = [self._log.sent() for _ in range(10)]
        futures: list[tuple[str, Any]] = []
        try:
            with spawny.batch() as batch:
                futures = [(call, batch.call(record, call)) for call in calls]
        finally:
            self._collect(futures)

    def _collect(self, futures: list[tuple[str, Any]]) -> None:
        """Acknowledge what came back; raise the first error once all is settled."""
        errors = []
        for call, future in futures:
            try:
                future.result(120)
            except SpawnyError as error:
                errors.append(error)
            else:
                self._log.acknowledged(call)
        if errors:
            raise errors[0]

    def _oneway(self) -> None:
        spawny.oneway(self._module().record)(self._log.sent())

    def _attach(self) -> None:
        module = spawny.attach(f"shared-{self._rng.randrange(SHARED)}")
        call = self._log.sent()
        module.record(call)
        self._log.acknowledged(call)

    def _unnamed(self) -> None:
        module = spawny.run_script(DAEMON, output="log")
        call = self._log.sent()
        module.record(call)
        self._log.acknowledged(call)

    def _named(self) -> None:
        name = f"own-{self._index}"
        module = spawny.run_script(DAEMON, name=name, output="log", if_exists="replace")
        call = self._log.sent()
        module.record(call)
        self._log.acknowledged(call)
        if self._rng.random() < 0.5:
            module.terminate_daemon()
        else:
            spawny.connect().stop(name)

    def _list(self) -> None:
        spawny.connect().list()


def main() -> None:
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    logging.disable(logging.WARNING)
    index, seed, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    load = Load(index, random.Random(seed), Log(directory, f"{index}-{os.getpid()}"))
    is_paused = True
    orders = io.FileIO(0, closefd=False)  # reads no further than a line: select sees the next
    while True:
        if is_paused or select.select([0], [], [], 0)[0]:
            command = orders.readline().strip()
            if not command:
                return
            is_paused = command == b"pause"
            if is_paused:
                load.let_go()
                print(json.dumps({"op": "paused"}), flush=True)
            continue
        print(json.dumps(load.operate()), flush=True)


if __name__ == "__main__":
    main()
