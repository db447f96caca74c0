"""The spawny that this one replaces, installed beside it for the comparison.

Its name is ours, so it has programs of its own: starters.py, and this file for calls. For each line
on stdin a round of them is made; what each took goes to stdout, as a line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from peers import Peer, timed

REQUIREMENT = "spawny==2.1.4"
TITLE = f"the original {REQUIREMENT}"


@contextmanager
def environment() -> Iterator[dict[str, str] | None]:
    """What a program needs that is to import it; None where it is not to be had."""
    with installed(REQUIREMENT, "six") as environ:  # which it imports and does not require
        yield environ


@contextmanager
def installed(*packages: str) -> Iterator[dict[str, str] | None]:
    """An environment in which these come first, in a folder of their own for the while."""
    with tempfile.TemporaryDirectory(prefix="sp-packages-") as folder:
        command = (sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, *packages)
        pip = subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
        yield None if pip.returncode else {**os.environ, "PYTHONPATH": folder}


@contextmanager
def calls() -> Iterator[Peer | None]:
    """A no-op of a daemon of its; None where it is not to be had."""
    with environment() as environ:
        if environ is None:
            yield None
            return
        with subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environ,
            text=True,
        ) as program:

            def run() -> list[int]:
                assert program.stdin is not None
                assert program.stdout is not None
                print(file=program.stdin, flush=True)
                return list(json.loads(program.stdout.readline()))

            yield Peer(run, program.pid)
            program.communicate()


def main() -> None:
    import logging

    import spawny

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # it talks
    module = spawny.run_script("def noop(): pass", logger=logging.Logger("quiet"))
    run = timed(module.noop)
    for _ in sys.stdin:
        print(json.dumps(run()), file=answers, flush=True)
    module.terminate_daemon()


if __name__ == "__main__":
    main()
