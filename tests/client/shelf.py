"""Arrays of known content, kept and checked by either end of `test_segments_random.py`."""

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy

# Item i of an array of seed s is i + s: so a place that was mixed up is seen, and an array that
# was changed by adding to it is one of another seed.
MOST_ITEMS = 2 * 1024 * 1024
_COUNTING = numpy.arange(MOST_ITEMS, dtype="u4")


def pattern(items: int, seed: int) -> Any:
    """A new array of so many items."""
    return _COUNTING[:items] + numpy.uint32(seed)


def is_right(array: Any, start: int, seed: int) -> bool:
    """Is this the part of a pattern that begins at item `start`?"""
    return bool((array - _COUNTING[start : start + len(array)] == numpy.uint32(seed)).all())


class Shelf:
    """key -> (array, the item that it begins with, seed)."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[Any, int, int]] = {}
        self._child: tuple[int, int] | None = None  # pid, descriptor that it waits at

    # --- what is kept ---

    def keep(self, key: int, array: Any, seed: int) -> None:
        self.kept[key] = array, 0, seed

    def keep_all(self, arrays: dict[int, tuple[Any, int]]) -> None:
        for key, (array, seed) in arrays.items():
            self.keep(key, array, seed)

    def mutate(self, key: int, by: int) -> None:
        array, start, seed = self.kept[key]
        array += numpy.uint32(by)
        self.kept[key] = array, start, (seed + by) % 2**32

    def cut(self, key: int, begin: float, end: float) -> None:
        """Keep a view alone, and let go of the rest."""
        array, start, seed = self.kept[key]
        first, last = sorted(int(len(array) * share) for share in (begin, end))
        self.kept[key] = array[first:last], start + first, seed

    def drop(self, key: int) -> None:
        self.kept.pop(key, None)

    def drop_all(self) -> None:
        self.kept.clear()

    def keys(self) -> list[int]:
        return list(self.kept)

    def wrong(self) -> list[int]:
        """The keys of what is not as it should be."""
        return [key for key, each in self.kept.items() if not is_right(*each)]

    # --- what is made for the other end ---

    def make(self, key: int, items: int, seed: int, is_kept: bool) -> Any:
        array = pattern(items, seed)
        if is_kept:
            self.keep(key, array, seed)
        return array

    def make_all(self, wanted: list[tuple[int, int, int, bool]]) -> dict[int, Any]:
        return {each[0]: self.make(*each) for each in wanted}

    def generate(self, wanted: list[tuple[int, int, int, bool]]) -> Iterator[Any]:
        for each in wanted:
            yield self.make(*each)

    def call(self, function: Any, key: int, items: int, seed: int, by: int) -> bool:
        """Call back with an array, change it meanwhile and after; keep what comes of it."""
        array = pattern(items, seed)
        result = function(array)
        array += numpy.uint32(by)
        self.keep(key, result, seed + 1)
        return is_right(array, 0, (seed + by) % 2**32)

    def call_from_thread(self, function: Any, key: int, items: int, seed: int, by: int) -> bool:
        """The same between calls, so to say: from a thread of the daemon's own."""
        found: list[bool] = []
        thread = threading.Thread(
            target=lambda: found.append(self.call(function, key, items, seed, by))
        )
        thread.start()
        thread.join()
        return found == [True]

    # --- forks ---

    def fork(self, by: int) -> bool:
        """Have a child of this process check, change and keep all that is here."""
        self.join()
        read, write = os.pipe()
        pid = os.fork()
        if pid:
            os.close(read)
            self._child = pid, write
            return True
        code = 1
        with suppress(BaseException):
            os.close(write)
            is_well = not self.wrong()
            for key in self.kept:
                self.mutate(key, by)
            os.read(read, 1)  # meanwhile the parent goes on
            code = 0 if is_well and not self.wrong() else 2
        os._exit(code)

    def join(self) -> bool:
        """The child looks once more, and ends; was all well with it?"""
        if self._child is None:
            return True
        (pid, write), self._child = self._child, None
        os.close(write)
        return os.waitpid(pid, 0)[1] == 0


# --- what is left of it all ---


def named() -> set[str]:
    """Shared memory of spawny's that has a name now: others' may come and go, one that is left
    stays."""
    return {each for each in os.listdir("/dev/shm") if each.startswith("spawny-")}


def mapped() -> int:
    """How many segments this process has mapped."""
    with open("/proc/self/maps") as maps:
        return sum("memfd:spawny" in line for line in maps)


def descriptors() -> list[str]:
    """What this process has open, but for sockets: there may be a connection more or less."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            found.append(re.sub(r"\d+", "", os.readlink(f"/proc/self/fd/{name}")))
    return sorted(each for each in found if not each.startswith("socket"))


def lent_and_borrowed() -> tuple[int, int]:
    """How many segments this process has lent, and uses of others, in all of its sessions."""
    for package in ("_spawny_kernel", "spawny.kernel"):
        if package + ".segments" in sys.modules:
            lender, borrower = sys.modules[package + ".lender"], sys.modules[package + ".borrower"]
            for each in list(lender._lenders):
                with each._lock:
                    each._recover()  # else it would be done in a second
            lent = sum(len(each.lent) for each in list(lender._lenders))
            borrowed = sum(each.watch is not None for each in list(borrower._borrowed))
            return lent, borrowed
    return 0, 0


def mapped_at(address: int) -> str | None:
    """What this process has mapped there, by the name that the system gives it."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            first, last = (int(each, 16) for each in line.split()[0].split("-"))
            if first <= address < last:
                return line.split(maxsplit=5)[5].strip() if line.count(" ") > 5 else None
    return None
