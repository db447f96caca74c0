"""Who sent which call, who was told that it is done, and who carried it out.

A client writes down a call before it sends it, and once it is acknowledged; a daemon when it
carries it out. Each is a line of its own file, appended by one write, so that a SIGKILL loses none.
"""

import os
from collections import Counter
from pathlib import Path

DONE = "done"


class Log:
    """What one client writes down."""

    def __init__(self, directory: str, name: str) -> None:
        self._name = name
        self._count = 0
        path = os.path.join(directory, f"client-{name}")
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def sent(self) -> str:
        """The name of a new call."""
        self._count += 1
        call = f"{self._name}-{self._count}"
        os.write(self._fd, f"sent {call}\n".encode())
        return call

    def acknowledged(self, call: str) -> None:
        os.write(self._fd, f"done {call}\n".encode())


def problems(directory: Path) -> list[str]:
    """Acknowledged calls that were not carried out exactly once, others that were more than once,
    and those that nobody sent."""
    sent, acknowledged = set(), set()
    for path in directory.glob("client-*"):
        for line in path.read_text().splitlines():
            word, call = line.split()
            (sent if word == "sent" else acknowledged).add(call)
    done = Counter((directory / DONE).read_text().split()) if (directory / DONE).exists() else {}
    found = [f"call {call} was acknowledged and not carried out" for call in acknowledged - {*done}]
    found += [f"call {call} was carried out {done[call]} times" for call in done if done[call] > 1]
    found += [f"call {call} was carried out, but not sent" for call in done if call not in sent]
    return found


def count(directory: Path) -> tuple[int, int]:
    """How many calls were sent, and how many acknowledged."""
    words: Counter[str] = Counter()
    for path in directory.glob("client-*"):
        words.update(line.split()[0] for line in path.read_text().splitlines())
    return words["sent"], words["done"]
