"""New processes by other ways: `python starters.py WAY`. Each line on stdin makes one and has it
answer; the milliseconds that this took go to stdout, a line each.

It is a program of its own, since each way leaves something behind in the process that uses it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection


def answer(connection: Connection) -> None:
    """What a new process does."""
    connection.send(42)


def forkserver() -> Iterator[Callable[[], object]]:
    """multiprocessing's own zygote, with numpy imported in it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["numpy", "starters"])

    def start() -> object:
        ours, theirs = context.Pipe()
        process = context.Process(target=answer, args=(theirs,))
        process.start()
        found = ours.recv()
        process.join()
        return found

    yield start


def loky() -> Iterator[Callable[[], object]]:
    """A worker of loky's, which is executed, and imports numpy when it is to."""
    from loky import ProcessPoolExecutor

    def start() -> object:
        with ProcessPoolExecutor(max_workers=1) as executor:
            return executor.submit(pow, 7, 2).result()

    yield start


def original() -> Iterator[Callable[[], object]]:
    """A daemon of the spawny that comes first on sys.path."""
    import logging

    import spawny

    quiet = logging.Logger("quiet")

    def start() -> object:
        module = spawny.run_script("def answer():\n    return 42", logger=quiet)
        found = module.answer()
        module.terminate_daemon()
        return found

    yield start


WAYS = {"forkserver": forkserver, "loky": loky, "original": original}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # some talk
    for start in WAYS[sys.argv[1]]():
        for _ in sys.stdin:
            began = time.perf_counter()
            start()
            print((time.perf_counter() - began) * 1000, file=answers, flush=True)


if __name__ == "__main__":
    main()
