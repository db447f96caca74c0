"""What the kernel gives of iterators, asked by hand."""

from collections.abc import Iterator
from typing import Any

import pytest

from spawny.kernel import wire
from tests.interpreters import Interpreter
from tests.kernel.bare import Daemon, Peer, bare_daemon

SCRIPT = """
def count(n):
    for i in range(n):
        yield i
def grouped():
    import itertools
    return itertools.groupby(map(taken.append, "aabbcc"), lambda _: len(taken) // 3)
taken = []
def taken_so_far():
    return len(taken)
"""

SECONDS = 5.0


@pytest.fixture
def daemon(interpreter: Interpreter) -> Iterator[Daemon]:
    with bare_daemon(str(interpreter.path)) as daemon:
        daemon.load(SCRIPT)
        daemon.link.expect("ready")
        yield daemon


def make(peer: Peer, name: str, *args: Any) -> int:
    """The number of what one of the script's functions makes."""
    kind, function = peer.ask(wire.GETATTR, wire.ROOT, name)
    assert kind == wire.REFERENCE, function
    kind, made = peer.ask(wire.CALL, function[0], args, {})
    assert kind == wire.REFERENCE, made
    return int(made[0])


def fetch(peer: Peer, oid: int, most: int, received: int) -> list[Any]:
    kind, (items, _) = peer.ask(wire.NEXT, oid, most, SECONDS, received, False)
    assert kind == wire.VALUE, items
    return list(items)


def test_a_chunk_that_was_not_received_is_given_again(daemon: Daemon) -> None:
    """The count of received items says whether the last answer has arrived."""
    peer = daemon.peer()
    oid = make(peer, "count", 100)
    assert fetch(peer, oid, 10, 0) == list(range(10))
    assert fetch(peer, oid, 10, 0) == list(range(10))
    assert fetch(peer, oid, 5, 10) == list(range(10, 15))


def test_what_is_put_back_comes_again(daemon: Daemon) -> None:
    """The items, then what follows them."""
    peer = daemon.peer()
    oid = make(peer, "count", 12)
    assert fetch(peer, oid, 10, 0) == list(range(10))
    assert peer.ask(wire.PUTBACK, oid, 4)[0] == wire.VALUE
    received = 4
    while received < 12:
        assert fetch(peer, oid, 10, received) == [received]
        received += 1


def test_an_iterator_of_two_sessions_is_not_read_ahead(daemon: Daemon) -> None:
    """Each would take what the other may want."""
    peer = daemon.peer("first")
    oid = make(peer, "count", 100)
    assert fetch(peer, oid, 10, 0) == list(range(10))
    other = Peer(daemon.call_path)
    other.hello("second", parent="first")
    assert fetch(other, oid, 10, 0) == [10]
    assert fetch(peer, oid, 10, 10) == [11]


def test_groups_are_not_read_ahead(daemon: Daemon) -> None:
    """Each ends when the next begins."""
    peer = daemon.peer()
    peer.send(wire.NEXT, make(peer, "grouped"), 10, SECONDS, 0, True)
    assert peer.frame()[0] == wire.VALUE
    _, function = peer.ask(wire.GETATTR, wire.ROOT, "taken_so_far")
    assert peer.ask(wire.CALL, function[0], (), {}) == (wire.VALUE, 1)
