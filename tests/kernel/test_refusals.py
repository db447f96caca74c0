"""What a daemon says, at its end, to requests that it has not begun."""

import pickle

import pytest

from spawny.kernel import wire
from tests.interpreters import Interpreter
from tests.kernel.bare import bare_daemon

SLEEP = """
import signal, time
def hold():
    print("held", flush=True)
    while True:
        time.sleep(60)
def note(text):
    print(text, flush=True)
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
