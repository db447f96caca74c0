"""Large buffers between a client and its daemon: every way that they may take, and its limits."""

import os
import queue
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy
import pytest

import spawny
from spawny import callback
from spawny.client import background
from spawny.client.channel import Channel
from spawny.client.proxy import reference_of
from spawny.kernel import borrower, lender, memory
from tests.client import shelf
from tests.client.block import Block
from tests.client.shelf import is_right, pattern
from tests.end_to_end.processes import Script, eventually, pause
from tests.interpreters import Interpreter

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.one_supervisor]

# In items of four bytes: beside the pickle, in a segment with others, in one of its own.
SIZES = [0, 100, 10_000, 100_000, 1_000_000]

SCRIPT = """
import numpy, os, resource, sys, threading
from tests.client.shelf import Shelf, is_right, lent_and_borrowed, mapped, pattern
lender = sys.modules["_spawny_kernel.lender"]
buffers = sys.modules["_spawny_kernel.buffers"]
shelf = Shelf()
kept = []
def echo(x):
    return x
length = len
def zeros(items):
    return numpy.zeros(items, dtype="u4")
def keep(x):
    kept.append(x)
def give_both(path):
    open(path).read()
    return shelf.kept[1][0], shelf.kept[2][0]
def forget():
    kept.clear()
def call(f, *args):
    return f(*args)
def set_in(module, name, value):
    setattr(sys.modules["_spawny_kernel." + module], name, value)
def free_bytes():
    return [loan.size for each in list(lender._lenders) for loan in each._free()]
def lose_nameless_files():
    del os.O_TMPFILE
def is_writeable(x):
    return x.flags.writeable
def limit(name, value):
    number = getattr(resource, name)
    if value is None:
        value = resource.getrlimit(number)[1]
    resource.setrlimit(number, (value, resource.getrlimit(number)[1]))
def used_address_space():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[0]) * 4096
def descriptors():
    return len(os.listdir("/proc/self/fd"))
"""


@pytest.fixture
def daemon(home: Path) -> Iterator[Any]:
    """A module with what the tests need at the other end."""
    module = spawny.run_script(SCRIPT)
    yield module
    module.terminate_daemon()


def exchange(daemon: Any) -> None:
    """All ways of an array, in all sizes: the same comes out."""
    for seed, items in enumerate(SIZES):
        array = pattern(items, seed)
        assert is_right(daemon.echo(array), 0, seed)
        daemon.shelf.keep(seed, array, seed)
        array += 1
        assert is_right(daemon.shelf.make(99, items, seed, False), 0, seed)
        assert is_right(daemon.call(callback(lambda x: x + 1), array), 0, seed + 2)
    assert list(daemon.shelf.wrong()) == []
    together = {items: pattern(items, items) for items in SIZES}
    for items, array in daemon.echo(together).items():
        assert is_right(array, 0, items)
        array += 1
    daemon.shelf.drop_all()


def is_shared(daemon: Any) -> bool:
    """Do large arrays go in segments now?"""
    array = daemon.echo(pattern(100_000, 0))
    found = shelf.mapped_at(array.ctypes.data)
    return found is not None and "spawny" in found


# --- the ways ---


def test_in_memory_that_both_have(daemon: Any) -> None:
    """The usual way on Linux."""
    exchange(daemon)
    assert is_shared(daemon)
    assert shelf.mapped() > 0


def test_without_memfd(daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that never had a name is as good."""
    monkeypatch.setattr(memory, "memfd_create", None)
    daemon.set_in("memory", "memfd_create", None)
    exchange(daemon)
    array = daemon.echo(pattern(100_000, 0))
    found = shelf.mapped_at(array.ctypes.data)
    assert found is not None
    assert found.endswith("(deleted)")
    assert shelf.mapped() == 0


def test_without_nameless_files(daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose name is taken away at once is as good, too."""
    monkeypatch.setattr(memory, "memfd_create", None)
    monkeypatch.delattr(os, "O_TMPFILE")
    daemon.set_in("memory", "memfd_create", None)
    daemon.lose_nameless_files()
    before = shelf.named()
    exchange(daemon)
    array = daemon.echo(pattern(100_000, 0))
    found = shelf.mapped_at(array.ctypes.data)
    assert found is not None
    assert "spawny-" in found
    assert eventually(lambda: shelf.named() <= before)


def test_without_preallocation(daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the memory is written once, to be there."""
    monkeypatch.delattr(os, "posix_fallocate")
    exchange(daemon)


def test_a_client_that_cannot_borrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything goes through the socket."""
    monkeypatch.setattr("spawny.kernel.buffers.can_borrow", lambda: False)
    daemon = spawny.run_script(SCRIPT)
    exchange(daemon)
    assert shelf.mapped() == 0
    assert daemon.mapped() == 0


def test_a_daemon_that_cannot_borrow() -> None:
    """Everything goes through the socket."""
    first = spawny.run_script(SCRIPT, name="inline")
    first.set_in("buffers", "can_borrow", bool)
    with Script(
        """
        import sys, spawny
        from tests.client import shelf, test_segments
        daemon = spawny.attach("inline")
        test_segments.exchange(daemon)
        print("mapped", shelf.mapped(), daemon.mapped())
        """
    ) as client:
        assert client.until("mapped") == "mapped 0 0"
        assert client.end()[0] == 0
    first.terminate_daemon()


def test_read_only_arrays(daemon: Any) -> None:
    """They are so at the other end; and what was not is not."""
    for items in SIZES:
        array = pattern(items, 1)
        assert daemon.is_writeable(array)
        assert daemon.echo(array).flags.writeable
        array.flags.writeable = False
        assert not daemon.is_writeable(array)
        assert not daemon.echo(array).flags.writeable


# --- who owns what ---


def test_a_batch_pickles_its_arguments_at_once(
    daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done to an array afterwards does not count, in a segment or through the socket."""
    for most in (0, lender.MOST_LENT):
        monkeypatch.setattr(lender, "MOST_LENT", most)
        array = pattern(100_000, 5)
        with spawny.batch() as batch:
            future = batch.call(daemon.echo, array)
            array += 1
        assert is_right(future.result(), 0, 5)


def test_a_client_that_stands_still(tmp_path: Path) -> None:
    """What waits for it is what was returned, whatever becomes of that meanwhile."""
    daemon = spawny.run_script(SCRIPT, name="still")
    daemon.set_in("buffers", "can_borrow", bool)
    for key in (1, 2):
        daemon.shelf.make(key, 500_000, key, True)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with Script(
        """
        import sys, spawny
        from tests.client.shelf import is_right
        first, second = spawny.attach("still").give_both(sys.argv[1])
        print("right", is_right(first, 0, 1), is_right(second, 0, 2))
        """,
        str(fifo),
    ) as client:
        with open(fifo, "w"):  # opened by both: the call is under way
            pause(client.process.pid)
        for key in (1, 2):
            daemon.shelf.mutate(key, 1)
        os.kill(client.process.pid, signal.SIGCONT)
        assert client.until("right") == "right True True"
        assert client.end()[0] == 0
    daemon.terminate_daemon()


def test_ctrl_c_right_after_the_sending(daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows whether the array has come: its memory is not used again for another."""
    send = Channel.send

    def interrupted(self: Channel, data: Any) -> None:
        send(self, data)
        raise KeyboardInterrupt

    keep = daemon.shelf.keep
    monkeypatch.setattr(Channel, "send", interrupted)
    with pytest.raises(KeyboardInterrupt):
        spawny.oneway(keep)(1, pattern(100_000, 1), 1)
    monkeypatch.undo()
    assert eventually(lambda: list(daemon.shelf.keys()) == [1])
    for seed in range(2, 6):
        keep(seed, pattern(100_000, seed), seed)
    assert list(daemon.shelf.wrong()) == []


@contextmanager
def on_another_channel(daemon: Any) -> Iterator[None]:
    """Than what was lent so far, which would be forgotten with it."""
    pool = reference_of(daemon).session._pool.free
    aside = pool[:]
    pool.clear()
    yield
    pool.extend(aside)


def test_what_the_client_tells_on_a_lost_connection(
    daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told again: what the daemon has lent comes back to it."""
    kept = daemon.echo(pattern(100_000, 1))
    echo, lent_and_borrowed = daemon.echo, daemon.lent_and_borrowed
    assert lent_and_borrowed() == (1, 0)

    def lose(self: Channel, data: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, on_another_channel(daemon):
        echo(0)
        patched.setattr(Channel, "send", lose)
        patched.setattr(background, "collected", queue.SimpleQueue())  # or the janitor tells it
        del kept
        with pytest.raises(KeyboardInterrupt):
            echo(1)
    assert eventually(lambda: lent_and_borrowed() == (0, 0))


def test_what_the_daemon_tells_on_a_lost_connection(
    daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told again: what the client has lent comes back to it."""
    lender = reference_of(daemon).session.lending._segments.lender
    daemon.keep(pattern(100_000, 1))
    forget, lent_and_borrowed = daemon.forget, daemon.lent_and_borrowed
    assert lent_and_borrowed() == (0, 1)
    assert len(lender.lent) == 1

    def interrupted(self: Channel) -> None:
        self.sock.recv(1, socket.MSG_PEEK)  # the answer is there
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, on_another_channel(daemon):
        patched.setattr(Channel, "_spin", interrupted)
        with pytest.raises(KeyboardInterrupt):
            forget()
    assert eventually(lambda: lent_and_borrowed() == (0, 0) and not lender.lent)


# --- limits ---


def test_a_thousand_arrays(daemon: Any) -> None:
    """Either end keeps them all, and has few descriptors for them."""
    before = shelf_descriptors(), daemon.descriptors()
    kept = []
    for seed in range(1000):
        array = daemon.echo(pattern(10_000, seed))
        kept.append((array, seed))
        daemon.shelf.keep(seed, array, seed)
    assert all(is_right(array, 0, seed) for array, seed in kept)
    assert list(daemon.shelf.wrong()) == []
    # Borrowed ones, and its own: each has one.
    most = 2 * (borrower.HOLD_SEGMENTS + lender.MOST_FREE)
    assert shelf_descriptors() < before[0] + most + 20
    assert daemon.descriptors() < before[1] + most + 20


def shelf_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_memory_that_is_not_used(daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given back by both ends after a while, though they go on; and though another session keeps
    this process busy all the time."""
    monkeypatch.setattr(lender, "KEEP_SECONDS", 1)
    daemon.set_in("lender", "KEEP_SECONDS", 1)
    other = spawny.run_script(SCRIPT)
    kept = [daemon.echo(pattern(1_000_000, n)) for n in range(4)]
    del kept
    assert daemon.echo(1) == 1
    assert shelf.mapped() > 0
    # The other's proxies have the janitor run all the time.
    assert eventually(lambda: other.shelf.keys is not None and shelf.mapped() == 0)
    other.terminate_daemon()
    assert eventually(lambda: daemon.mapped() == 0)
    assert daemon.free_bytes() == []
    exchange(daemon)


def test_many_threads(daemon: Any) -> None:
    """Each gets its own arrays back."""
    wrong: list[int] = []

    def work(seed: int) -> None:
        for items in SIZES * 4:
            if not is_right(daemon.echo(pattern(items, seed)), 0, seed):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not wrong


# --- nothing left to be had ---


@contextmanager
def limited(number: int, value: int) -> Iterator[None]:
    before = resource.getrlimit(number)
    resource.setrlimit(number, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(number, before)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """All that this process may have are in use."""
    used = []
    with limited(resource.RLIMIT_NOFILE, 200):
        with suppress(OSError):
            while True:
                used.append(os.dup(0))
        yield
    for each in used:
        os.close(each)


def test_no_room_for_files_here(daemon: Any) -> None:
    """As on a full disk: the arrays go through the socket."""
    daemon.echo(1)
    with limited(resource.RLIMIT_FSIZE, 4096):
        exchange(daemon)
        assert reference_of(daemon).session.lending._segments.lender.lent == []
    exchange(daemon)


def test_no_room_for_files_there(daemon: Any) -> None:
    """The arrays come through the socket."""
    daemon.limit("RLIMIT_FSIZE", 4096)
    exchange(daemon)
    array = daemon.echo(pattern(100_000, 0))
    found = shelf.mapped_at(array.ctypes.data)
    assert found is None or "spawny" not in found


def test_no_descriptors_here(daemon: Any) -> None:
    """What is sent goes through the socket; what would have come in a segment stays there, and the
    connection lives."""
    daemon.shelf.keep(1, pattern(100, 1), 1)
    make, keep, echo = daemon.shelf.make, daemon.shelf.keep, daemon.echo
    with no_descriptors():
        keep(2, pattern(100_000, 2), 2)
        with pytest.raises(spawny.SerializationError, match="no room here") as caught:
            make(3, 100_000, 3, False)
        assert echo(4) == 4
    assert list(daemon.shelf.wrong()) == []
    assert is_right(spawny.value(caught.value.proxy), 0, 3)  # type: ignore[attr-defined]
    del caught
    exchange(daemon)
    assert eventually(lambda: daemon.lent_and_borrowed() == (0, 0))


def test_no_descriptors_there(daemon: Any) -> None:
    """Everything goes through the socket, and the connection lives."""
    exchange(daemon)
    limit = daemon.limit
    daemon.echo(1)
    limit("RLIMIT_NOFILE", 3)
    for seed, items in enumerate(SIZES):
        assert is_right(daemon.echo(pattern(items, seed)), 0, seed)
    limit("RLIMIT_NOFILE", None)
    exchange(daemon)


# More than is left of the address space, which is some 100 MB.
HUGE_ITEMS = 50_000_000


def test_no_memory_there(daemon: Any) -> None:
    """What does not fit is refused, and the connection lives."""
    array = numpy.zeros(HUGE_ITEMS, dtype="u4")
    echo, limit = daemon.echo, daemon.limit
    assert echo(1) == 1
    limit("RLIMIT_AS", daemon.used_address_space() + 100_000_000)
    with pytest.raises(spawny.SerializationError, match="no room in daemon"):
        echo(array)
    assert echo(2) == 2
    assert is_right(echo(pattern(100_000, 1)), 0, 1)
    limit("RLIMIT_AS", None)
    assert len(echo(array)) == HUGE_ITEMS
    exchange(daemon)


def test_no_memory_here() -> None:
    """What does not fit stays there, and the connection lives."""
    daemon = spawny.run_script(SCRIPT, name="large")
    with Script(
        f"""
        import numpy, resource, spawny
        from tests.client.test_segments import exchange
        daemon = spawny.attach("large")
        exchange(daemon)
        array = numpy.zeros({HUGE_ITEMS}, dtype="u4")
        with open("/proc/self/statm") as statm:
            used = int(statm.read().split()[0]) * 4096
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000, before[1]))
        print("sent", daemon.length(array))
        try:
            daemon.zeros({HUGE_ITEMS})
        except spawny.SerializationError as error:
            print("refused", error)
            print("there", len(error.proxy))
        exchange(daemon)
        resource.setrlimit(resource.RLIMIT_AS, before)
        print("now", len(daemon.zeros({HUGE_ITEMS})))
        """
    ) as client:
        assert client.until("sent") == f"sent {HUGE_ITEMS}"
        assert "no room here" in client.until("refused")
        assert client.until("there") == f"there {HUGE_ITEMS}"
        assert client.until("now") == f"now {HUGE_ITEMS}"
        assert client.end()[0] == 0
    daemon.terminate_daemon()


# --- other interpreters ---

BLOCKS = """
from tests.client.block import Block
kept = []
def keep(block):
    kept.append(block)
    return block
def change(by):
    for block in kept:
        block.data[0] = block.data[0] + by
def firsts():
    return [block.data[0] for block in kept]
"""


@pytest.mark.parametrize("size", [1000, 100_000, 2_000_000])
def test_buffers_that_are_no_arrays(interpreter: Interpreter, size: int) -> None:
    """Either end has its own, under any interpreter."""
    daemon = spawny.run_script(BLOCKS, python_exe=interpreter.path)
    blocks = [Block(bytearray([n]) * size) for n in range(5)]
    results = [daemon.keep(block) for block in blocks]
    assert [bytes(each.data) for each in results] == [bytes(each.data) for each in blocks]
    daemon.change(100)
    for block in results:
        block.data[0] = 50
    more = [daemon.keep(block) for block in blocks]
    assert list(daemon.firsts()) == [100, 101, 102, 103, 104, 0, 1, 2, 3, 4]
    assert [each.data[0] for each in blocks + results + more] == [*range(5), *[50] * 5, *range(5)]
