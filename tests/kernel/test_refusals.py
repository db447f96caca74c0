"""What a daemon says, at its end, to requests that it has not begun."""

import pickle
import time

import pytest

from spawny.kernel import wire
from spawny.kernel.recycling import SETTLE_SECONDS
from tests.interpreters import Interpreter
from tests.kernel.bare import Peer, bare_daemon

SLEEP = """
import signal, time
def hold():
    print("held", flush=True)
    while True:
        time.sleep(60)
def note(text):
    print(text, flush=True)
async def noted(text):
    return text
"""

# The kernel's patience for results, shortened.
IMPATIENT = """
import sys
for name in ("tasks", "guard"):
    sys.modules["_spawny_kernel." + name].FETCH_SECONDS = 0.2
"""

LOSING = """
import signal, time
def lose():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    print("losing", flush=True)
    signal.sigwait({signal.SIGINT})
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    while True:
        time.sleep(60)
"""


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_request_that_waits_is_answered_as_not_run(
    interpreter: Interpreter, comes_back: bool
) -> None:
    """A request behind the one that runs has an ERROR that says so, whatever becomes of the other,
    and whether the daemon comes back."""
    with bare_daemon(interpreter.path) as daemon:
        daemon.load(SLEEP)
        first, second = daemon.peer("one"), daemon.peer("two")
        first.send(wire.METHOD, wire.ROOT, "hold", (), {})
        assert first.frame()[0] == wire.OUTPUT
        second.send(wire.METHOD, wire.ROOT, "note", ("never",), {})
        daemon.link.send("stop", reason="enough", comes_back=comes_back)
        kind, flags, body = first.frame()
        while kind == wire.OUTPUT:
            kind, flags, body = first.frame()
        assert (kind, flags) == (wire.ERROR, 0)
        assert "was ended while this ran: enough" in pickle.loads(body)[3]
        kind, flags, body = second.frame()
        assert kind == wire.ERROR
        assert flags == wire.NOT_RUN | (wire.COMES_BACK if comes_back else 0)
        assert "not run" in pickle.loads(body)[3]
        assert second.is_closed()
        assert "never" not in daemon.log.read_text()


@pytest.mark.parametrize("is_cut", [False, True])
def test_what_a_client_that_is_gone_has_asked_for_keeps_no_daemon(
    interpreter: Interpreter, is_cut: bool
) -> None:
    """Though a call that never ends keeps it from being read: its answer is of use to nobody."""
    with bare_daemon(interpreter.path) as daemon:
        daemon.load(SLEEP, idle_timeout=0)
        first, second = daemon.peer(), daemon.peer()
        first.send(wire.METHOD, wire.ROOT, "hold", (), {})
        assert first.frame()[0] == wire.OUTPUT
        frame = wire.frame(wire.METHOD, pickle.dumps((wire.ROOT, "note", ("never",), {}), 4))
        second.sock.sendall(frame + frame[: len(frame) // 2 * is_cut])
        first.sock.close()
        second.sock.close()
        assert daemon.link.expect("ending")["reason"] == "its last client left"
        daemon.process.wait()
        assert "never" not in daemon.log.read_text()


def test_one_way_calls_of_a_client_that_is_gone_are_made(interpreter: Interpreter) -> None:
    """They keep it until then."""
    with bare_daemon(interpreter.path) as daemon:
        daemon.load(SLEEP, idle_timeout=0)
        first, second = daemon.peer(), daemon.peer()
        first.send(wire.METHOD, wire.ROOT, "hold", (), {})
        assert first.frame()[0] == wire.OUTPUT
        second.send(wire.METHOD, wire.ROOT, "note", ("told",), {}, flags=wire.ONEWAY)
        first.sock.close()
        second.sock.close()
        daemon.link.send("interrupt", id=1, call=None)
        assert daemon.link.expect("ending")["reason"] == "its last client left"
        daemon.process.wait()
        assert "told" in daemon.log.read_text()


def test_each_of_many_requests_is_answered(interpreter: Interpreter) -> None:
    """Requests sent at once, a cut one at their end, are answered in order, whole ones only."""
    with bare_daemon(interpreter.path) as daemon:
        daemon.load(SLEEP)
        first, second = daemon.peer("one"), daemon.peer("two")
        first.send(wire.METHOD, wire.ROOT, "hold", (), {})
        assert first.frame()[0] == wire.OUTPUT
        body = pickle.dumps((wire.ROOT, "note", ("never",), {}), 4)
        frame = wire.frame(wire.METHOD, body, wire.PIPELINED)
        second.sock.sendall(frame * 5 + frame[:20])
        daemon.link.send("stop", reason="enough")
        for _ in range(5):
            assert second.frame()[:2] == (wire.ERROR, wire.NOT_RUN)
        assert second.is_closed()


def test_one_way_calls_that_are_not_made_are_in_the_log(interpreter: Interpreter) -> None:
    """Nobody can be told of them otherwise."""
    with bare_daemon(interpreter.path) as daemon:
        daemon.load(SLEEP)
        first, second = daemon.peer("one"), daemon.peer("two")
        first.send(wire.METHOD, wire.ROOT, "hold", (), {})
        assert first.frame()[0] == wire.OUTPUT
        for _ in range(3):
            second.send(wire.METHOD, wire.ROOT, "note", ("never",), {}, flags=wire.ONEWAY)
        daemon.link.send("stop", reason="enough")
        daemon.link.expect("ending")
        assert second.is_closed()
        daemon.process.wait()
        assert "3 one-way calls were not made: enough" in daemon.log.read_text()


def test_a_successor_waits_until_results_of_coroutines_are_fetched(
    interpreter: Interpreter,
) -> None:
    """They have run; whoever is told that they are over is about to ask."""
    with bare_daemon(interpreter.path) as daemon:
        daemon.load(SLEEP)
        events, other = Peer(daemon.call_path), daemon.peer("other")
        events.hello("one", wire.ROLE_EVENTS)
        caller = daemon.peer("one")
        kind, task = caller.ask(wire.AWAIT, wire.ROOT, "noted", ("done",), {})
        assert kind == wire.REFERENCE
        assert events.frame()[0] == wire.DONE
        daemon.link.send("recycle", reason="enough", token="t")
        daemon.link.send("ping")
        daemon.link.expect("pong")
        other.send(wire.METHOD, wire.ROOT, "note", ("in the next",), {})
        until = time.monotonic() + 4 * SETTLE_SECONDS
        while time.monotonic() < until:
            daemon.link.send("ping")
            daemon.link.expect("pong")
        assert caller.ask(wire.METHOD, task[0], "result", (), {}) == (wire.VALUE, "done")
        assert other.frame()[:2] == (wire.ERROR, wire.NOT_RUN | wire.COMES_BACK)


def test_a_successor_does_not_wait_for_ever(interpreter: Interpreter) -> None:
    """A client that is stopped fetches nothing."""
    with bare_daemon(interpreter.path) as daemon:
        daemon.load(IMPATIENT + SLEEP)
        caller = daemon.peer("one")
        assert caller.ask(wire.AWAIT, wire.ROOT, "noted", ("done",), {})[0] == wire.REFERENCE
        daemon.link.send("recycle", reason="enough", token="t")
        assert daemon.link.expect("ending")["recycled"]


def test_an_interrupt_that_is_lost_is_sent_again(interpreter: Interpreter) -> None:
    """As where it comes just before a system call: here it is taken from the queue of signals."""
    with bare_daemon(interpreter.path) as daemon:
        daemon.load(LOSING)
        peer = daemon.peer()
        peer.send(wire.METHOD, wire.ROOT, "lose", (), {})
        assert peer.frame()[0] == wire.OUTPUT
        daemon.link.send("interrupt")
        kind, failure = peer.answer()
        assert kind == wire.ERROR
        assert failure[2] == "KeyboardInterrupt"
