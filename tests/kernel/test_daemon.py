"""The kernel alone, under every interpreter: what it answers, and what it survives."""

import io
import pickle
import signal
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from spawny.kernel import wire
from tests.interpreters import Interpreter
from tests.kernel.bare import PATIENCE_SECONDS, Daemon, Peer, bare_daemon

SCRIPT = """
import atexit, os, sys, threading, time
def echo(x): return x
counted = []
def count():
    counted.append(1)
    return len(counted)
def lock(): return threading.Lock()
def fail(): raise ValueError("no")
class Broken(Exception):
    def __str__(self): raise RuntimeError("no text")
    def __reduce__(self): raise RuntimeError("no pickle")
def broken(): raise Broken()
def leave(): sys.exit(3)
def talk():
    print("half a line", end="")
    return 1
def chatter(lines):
    for n in range(lines): print("x" * 1000)
    return "done"
def close_stdio():
    for fd in (0, 1, 2): os.close(fd)
def spin():
    while True: time.sleep(0.01)
def ours():
    return sorted(name for name in sys.modules if "spawny" in name)
def path(): return list(sys.path)
def main(): return sorted(vars(sys.modules["__main__"]))
def argv(): return sys.argv
def names(): return sorted(sys.modules)
def fds(): return len(os.listdir("/proc/self/fd"))
class Finalized:
    def __del__(self): print("finalized by", threading.current_thread() is threading.main_thread())
def finalized(): return Finalized()
def at_exit(path): atexit.register(lambda: open(path, "w").close())
def call(f): return f()
"""


@pytest.fixture
def bare(interpreter: Interpreter) -> Iterator[Daemon]:
    with bare_daemon(str(interpreter.path)) as daemon:
        yield daemon


@pytest.fixture
def daemon(bare: Daemon) -> Daemon:
    bare.load(SCRIPT)
    bare.link.expect("ready")
    return bare


def function(peer: Peer, name: str) -> int:
    """The reference number of one of the script's functions."""
    kind, body = peer.ask(wire.GETATTR, wire.ROOT, name)
    assert kind == wire.REFERENCE, body
    return int(body[0])


def call(peer: Peer, name: str, *args: Any) -> Any:
    kind, body = peer.ask(wire.CALL, function(peer, name), args, {})
    assert kind == wire.VALUE, body
    return body


class Function(NamedTuple):
    """A function of the client's, among the arguments of a call."""

    callback_id: int
    name: str


class ArgumentPickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return tuple(obj) if type(obj) is Function else None


def send_call(peer: Peer, oid: int, *args: Any, flags: int = 0) -> None:
    """Send a call among whose arguments are functions of the client's."""
    buffer = io.BytesIO()
    ArgumentPickler(buffer, 4).dump((oid, args, {}))
    peer.sock.sendall(wire.frame(wire.CALL, buffer.getvalue(), flags | wire.WITH_REFERENCES))


def wait_busy(daemon: Daemon, what: str) -> dict[str, Any]:
    """What the daemon says of the call that runs, once it is this one."""
    while True:
        daemon.link.send("ping", id=7)
        busy: dict[str, Any] | None = daemon.link.expect("pong")["busy"]
        if busy is not None and busy["what"] == what:
            return busy


def test_says_who_it_is(bare: Daemon, interpreter: Interpreter) -> None:
    """The hello names the interpreter that really runs."""
    assert bare.hello["name"] == "bare"
    assert bare.hello["token"] == "token"
    assert bare.hello["pid"] == bare.process.pid
    assert tuple(bare.hello["version"]) == interpreter.version
    assert bare.hello["implementation"] == interpreter.implementation
    assert bare.hello["state"] == "new"


def test_leaves_the_interpreter_to_the_user(daemon: Daemon) -> None:
    """Nothing of ours on sys.path, in sys.argv or in __main__; one private name in sys.modules."""
    peer = daemon.peer()
    assert all(name.startswith(("_spawny_kernel", "spawny_script")) for name in call(peer, "ours"))
    assert not any("spawny" in entry for entry in call(peer, "path"))
    assert call(peer, "argv") == [""]
    assert not [name for name in call(peer, "main") if not name.startswith("__")]
    assert "spawny" not in call(peer, "names")


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 12,
        b"\x00" * 12,
        wire.HEADER.pack(1 << 41, wire.CALL, 0, 0) + b"and so on",
    ],
)
def test_garbage_costs_its_connection(daemon: Daemon, garbage: bytes) -> None:
    """Before a hello or after it; other connections never notice."""
    other = daemon.peer("other")
    stranger = Peer(daemon.call_path)
    stranger.sock.sendall(garbage)
    assert stranger.is_closed()
    peer = daemon.peer()
    peer.sock.sendall(garbage)
    assert peer.is_closed()
    assert call(other, "echo", 1) == 1


def test_half_a_frame_costs_its_connection(daemon: Daemon) -> None:
    """A client that dies while it sends has not called."""
    peer = daemon.peer()
    whole = wire.frame(wire.CALL, pickle.dumps((function(peer, "count"), (), {}), 4))
    peer.sock.sendall(whole[:-3])
    peer.sock.close()
    other = daemon.peer("other")
    assert call(other, "echo", 1) == 1
    assert call(other, "count") == 1


@pytest.mark.parametrize(
    "body", [b"", b"no pickle", pickle.dumps(3), pickle.dumps(("x",)), b"\x80\x04cno\nsuch\n."]
)
def test_a_bad_request_costs_that_request(daemon: Daemon, body: bytes) -> None:
    """An ERROR answers it, and the next request on the same connection is answered as ever."""
    peer = daemon.peer()
    peer.sock.sendall(wire.frame(wire.CALL, body))
    assert peer.answer()[0] == wire.ERROR
    assert call(peer, "echo", "fine") == "fine"


def test_class_missing_there(daemon: Daemon) -> None:
    """Arguments of a class that the daemon lacks cannot be loaded, and nothing is executed."""
    peer = daemon.peer()
    body = b"\x80\x04\x8c\x0bno_such_mod\x8c\x03Cls\x93."
    peer.sock.sendall(wire.frame(wire.CALL, body))
    kind, (_, module, name, message, _) = peer.answer()
    assert (kind, module, name) == (wire.ERROR, "spawny.errors", "Unsendable")
    assert "no_such_mod" in message


def test_unknown_reference(daemon: Daemon) -> None:
    """A number that was never given out, or was released, is stale."""
    peer = daemon.peer()
    kind, body = peer.ask(wire.CALL, 999, (), {})
    assert (kind, body[2]) == (wire.ERROR, "StaleReference")
    oid = function(peer, "echo")
    peer.sock.sendall(wire.frame(wire.RELEASE, pickle.dumps([(oid, 1)], 4)))
    kind, body = peer.ask(wire.CALL, oid, (1,), {})
    assert (kind, body[2]) == (wire.ERROR, "StaleReference")


def test_result_that_does_not_pickle(daemon: Daemon) -> None:
    """It is a reference, and the connection lives."""
    peer = daemon.peer()
    kind, body = peer.ask(wire.CALL, function(peer, "lock"), (), {})
    assert kind == wire.REFERENCE
    kind, body = peer.ask(wire.METHOD, body[0], "locked", (), {})
    assert (kind, body) == (wire.VALUE, False)


def test_exceptions_of_every_kind_are_answered(daemon: Daemon) -> None:
    """With no text, no pickle, or meant to leave the interpreter."""
    peer = daemon.peer()
    for name, error in (("fail", "ValueError"), ("broken", "Broken"), ("leave", "SystemExit")):
        kind, body = peer.ask(wire.CALL, function(peer, name), (), {})
        assert (kind, body[2]) == (wire.ERROR, error)
        assert name in body[4]
    assert call(peer, "echo", 1) == 1


def test_output_comes_before_the_answer(daemon: Daemon) -> None:
    """Also the part of a line that was not ended; the log has it too."""
    peer = daemon.peer()
    peer.send(wire.CALL, function(peer, "talk"), (), {})
    assert peer.frame() == (wire.OUTPUT, 1, b"half a line")
    assert peer.frame()[0] == wire.VALUE
    assert b"half a line" in daemon.log.read_bytes()


def test_large_bodies(daemon: Daemon) -> None:
    """In pieces on the way in and on the way out."""
    peer = daemon.peer()
    for data in (b"x" * 70_000, b"y" * 5_000_000):
        assert call(peer, "echo", data) == data


def test_sessions_hold_references_by_count(daemon: Daemon) -> None:
    """What one session releases another still has; the last one's end frees it."""
    first, second = daemon.peer("first"), daemon.peer("second")
    kind, made = first.ask(wire.CALL, function(first, "finalized"), (), {})
    assert kind == wire.REFERENCE
    inheritor = Peer(daemon.call_path)
    inheritor.hello("child", parent="first")
    first.sock.close()
    # The end of the first session is dealt with before a later request.
    assert call(second, "echo", 1) == 1
    assert inheritor.ask(wire.GETATTR, made[0], "__class__")[0] == wire.REFERENCE
    inheritor.sock.close()
    while call(second, "echo", 1) and b"finalized by True" not in daemon.log.read_bytes():
        pass


def test_interrupt_is_for_one_request_only(daemon: Daemon) -> None:
    """One that is over is left alone, as is the next one on that connection."""
    peer = Peer(daemon.call_path)
    _, connection_id = peer.hello("session")
    oid = function(peer, "echo")
    errand = Peer(daemon.call_path)
    assert errand.ask(wire.INTERRUPT, connection_id, 1) == (wire.ACK, "")
    assert peer.ask(wire.CALL, oid, (5,), {}) == (wire.VALUE, 5)
    # One that has not begun yet will not begin.
    errand = Peer(daemon.call_path)
    assert errand.ask(wire.INTERRUPT, connection_id, 3) == (wire.ACK, "withdrawn")
    kind, body = peer.ask(wire.CALL, oid, (5,), {})
    assert (kind, body[2]) == (wire.ERROR, "KeyboardInterrupt")
    assert peer.ask(wire.CALL, oid, (5,), {}) == (wire.VALUE, 5)


def test_a_callback_waits_for_the_event_connection(daemon: Daemon) -> None:
    """A client opens it before its first request, but that may be carried out first."""
    peer = daemon.peer()
    send_call(peer, function(peer, "call"), Function(1, "f"), flags=wire.ONEWAY)
    daemon.link.send("ping", id=7)
    daemon.link.expect("pong")  # the call has had its time
    events = Peer(daemon.call_path)
    events.hello("session", wire.ROLE_EVENTS)
    kind, _, body = events.frame()
    assert kind == wire.CALLBACK
    events.sock.sendall(wire.frame(wire.RETURN, body[: wire.NUMBER.size] + pickle.dumps(1, 4)))
    assert call(peer, "echo", 5) == 5


def test_control_thread_answers_while_the_main_thread_is_busy(daemon: Daemon) -> None:
    """Ping, stacks, attaching, interrupt: none of them waits for the call."""
    peer = daemon.peer()
    peer.send(wire.CALL, function(peer, "spin"), (), {})
    assert wait_busy(daemon, "spin()")["client_pid"] == 12345
    daemon.link.send("stacks", id=8)
    assert "in spin" in daemon.link.expect("stacks")["text"]
    daemon.peer("another")
    daemon.link.send("interrupt", id=9, call=None)
    assert daemon.link.expect("interrupted")["done"] is True
    kind, body = peer.answer()
    assert (kind, body[2]) == (wire.ERROR, "KeyboardInterrupt")


def test_serves_on_without_a_supervisor(daemon: Daemon) -> None:
    """The link may break; a poke brings it back, and the hello tells how things stand."""
    peer = daemon.peer()
    daemon.link.sock.close()
    assert call(peer, "echo", 1) == 1
    Peer(daemon.call_path).sock.sendall(wire.frame(wire.POKE))
    daemon.link = daemon.accept_link()
    hello = daemon.link.expect("hello")
    assert (hello["state"], hello["clients"], hello["calls"]) == ("ready", 1, 2)


def test_a_socket_that_somebody_removed_is_made_anew(daemon: Daemon) -> None:
    """At a ping; who has knocked before is let in, who is in stays, and its end removes it."""
    peer = daemon.peer()
    waiting = Peer(daemon.call_path)
    daemon.call_path.unlink()
    daemon.link.send("ping", id=1)
    daemon.link.expect("pong")
    assert stat.S_IMODE(daemon.call_path.stat().st_mode) == 0o600
    waiting.hello("waiting")
    assert call(waiting, "echo", 1) == call(daemon.peer("new"), "echo", 1) == call(peer, "echo", 1)
    daemon.link.send("stop", reason="enough")
    assert daemon.process.wait(PATIENCE_SECONDS) == 0
    assert not daemon.call_path.exists()


def test_a_socket_that_another_daemon_has_made_is_left_alone(daemon: Daemon) -> None:
    """The path has its name, and so belongs to the one that came last."""
    daemon.call_path.unlink()
    daemon.call_path.touch()
    daemon.link.send("ping", id=1)
    daemon.link.expect("pong")
    assert daemon.call_path.is_file()


def test_stop_is_a_clean_end(daemon: Daemon, tmp_path: Any) -> None:
    """What runs is interrupted, atexit functions run, the socket is gone, the exit code is 0."""
    marker = tmp_path / "exited"
    peer = daemon.peer()
    call(peer, "at_exit", str(marker))
    peer.send(wire.CALL, function(peer, "spin"), (), {})
    wait_busy(daemon, "spin()")
    daemon.link.send("stop", reason="enough")
    assert daemon.link.expect("ending")["reason"] == "enough"
    kind, body = peer.answer()
    assert (kind, body[2]) == (wire.ERROR, "DaemonDied")
    assert daemon.process.wait(PATIENCE_SECONDS) == 0
    assert marker.exists()
    assert not daemon.call_path.exists()


def test_sigint_at_rest_is_nothing(daemon: Daemon) -> None:
    """Only an interrupt that is meant for a call raises anything."""
    peer = daemon.peer()
    for _ in range(20):
        daemon.process.send_signal(signal.SIGINT)
        assert call(peer, "echo", 1) == 1


def test_who_comes_before_the_definition_is_told_of_it(bare: Daemon) -> None:
    """Not of none, which would be another than the one that was asked for."""
    early = Peer(bare.call_path)
    early.send(wire.HELLO, wire.PROTOCOL, "early", wire.ROLE_CALLS, 12345, 4, None, False)
    bare.link.expect("clients")
    bare.load(SCRIPT)
    kind, started = early.answer()
    assert (kind, started["digest"]) == (wire.STARTED, "d")
    assert early.answer()[0] == wire.READY


def test_failed_definition(bare: Daemon) -> None:
    """The link hears of it, a client that comes gets the exception, the exit code is 1."""
    bare.load("1 / 0")
    failed = bare.link.expect("failed")
    assert failed["error"].startswith("ZeroDivisionError")
    assert "1 / 0" in failed["traceback"]
    peer = Peer(bare.call_path)
    peer.send(wire.HELLO, wire.PROTOCOL, "s", wire.ROLE_CALLS, 1, 4, None, False)
    assert peer.answer()[0] == wire.STARTED
    kind, body = peer.answer()
    assert (kind, body[2]) == (wire.ERROR, "ZeroDivisionError")
    assert bare.process.wait(PATIENCE_SECONDS) == 1


def test_another_protocol_is_told_so(daemon: Daemon) -> None:
    """A client of a version that speaks otherwise gets a VersionMismatch, not silence."""
    peer = Peer(daemon.call_path)
    kind, body = peer.ask(wire.HELLO, 999)
    assert (kind, body[2]) == (wire.ERROR, "VersionMismatch")


def test_users_modules_may_be_named_like_ours(interpreter: Interpreter, tmp_path: Any) -> None:
    """Nor do they shadow ours: one may even be called json."""
    for name in ("wire", "server", "link", "objects", "json", "pickle_", "output"):
        (tmp_path / f"{name}.py").write_text("mine = True\n")
    with bare_daemon(str(interpreter.path)) as daemon:
        daemon.load(
            "import wire, server, link, objects, output\n"
            "assert wire.mine and server.mine and link.mine and objects.mine and output.mine\n",
            sys_path=[str(tmp_path)],
        )
        assert daemon.link.expect("ready")
        daemon.peer()


def test_ends_when_its_last_client_leaves(bare: Daemon) -> None:
    """With an idle_timeout of 0, without anybody asking the supervisor."""
    bare.load(SCRIPT, idle_timeout=0)
    bare.link.expect("ready")
    first, second = bare.peer("first"), bare.peer("second")
    first.sock.close()
    assert call(second, "echo", 1) == 1
    second.sock.close()
    assert "client" in bare.link.expect("ending")["reason"]
    assert bare.process.wait(PATIENCE_SECONDS) == 0


def test_descriptors_do_not_leak(daemon: Daemon) -> None:
    """A hundred connections later there are as many descriptors as before."""
    peer = daemon.peer()
    before = call(peer, "fds")
    for n in range(100):
        daemon.peer(f"visitor {n}").sock.close()
    daemon.link.send("ping", id=1)
    while daemon.link.expect("pong")["clients"] != 1:
        daemon.link.send("ping", id=1)
    assert call(peer, "fds") <= before + 1


NASTY = """
class Exits(Exception):
    def __str__(self): raise SystemExit(7)
    def __reduce__(self): raise SystemExit(8)
class Interrupts(Exception):
    def __str__(self): raise KeyboardInterrupt
    def __reduce__(self): raise KeyboardInterrupt
class Sealed(Exception):
    def __setattr__(self, name, value): raise RuntimeError(name)
class NoTrace(Exception):
    __traceback__ = property(lambda self: 1 / 0)
class Nowhere(Exception):
    pass
Nowhere.__module__ = lambda: None
class NoClass(Exception):
    __class__ = property(lambda self: 1 / 0)
def throw(name): raise globals()[name]()
def fine(): return 1
class Meta(type):
    __hash__ = None
    def __getattr__(cls, name): raise RuntimeError(name)
class Unhashable(metaclass=Meta):
    pass
def unhashable(): return Unhashable()
"""


@pytest.mark.parametrize("name", ["Exits", "Interrupts", "Sealed", "NoTrace", "Nowhere", "NoClass"])
def test_exceptions_whose_own_code_fails(bare: Daemon, name: str) -> None:
    """Whatever an exception's methods raise, its call is answered and the daemon lives."""
    bare.load(NASTY)
    peer = bare.peer()
    kind, body = peer.ask(wire.CALL, function(peer, "throw"), (name,), {})
    # PyPy itself asks for the property when it raises NoTrace, so that another error comes of it.
    is_pypys = name == "NoTrace" and bare.hello["implementation"] == "pypy"
    assert (kind, body[2]) == (wire.ERROR, "ZeroDivisionError" if is_pypys else name)
    assert call(peer, "fine") == 1


def test_a_definition_whose_exception_fails(bare: Daemon) -> None:
    """It is reported like any other."""
    bare.load(NASTY + "throw('Exits')")
    assert bare.link.expect("failed")["error"].startswith("Exits: ")
    peer = Peer(bare.call_path)
    peer.send(wire.HELLO, wire.PROTOCOL, "s", wire.ROLE_CALLS, 1, 4, None, False)
    assert peer.answer()[0] == wire.STARTED
    assert peer.answer()[1][2] == "Exits"
    assert bare.process.wait(PATIENCE_SECONDS) == 1


def test_results_of_nasty_classes(bare: Daemon) -> None:
    """A class that cannot be hashed or asked anything: its instance is a reference."""
    bare.load(NASTY)
    peer = bare.peer()
    kind, _ = peer.ask(wire.CALL, function(peer, "unhashable"), (), {})
    assert kind == wire.REFERENCE
    assert call(peer, "fine") == 1


def test_more_buffers_than_a_body_can_hold_cost_that_request(daemon: Daemon) -> None:
    """Their number alone makes no room for them: the daemon goes on at once."""
    peer = daemon.peer()
    body = b"\xff\xff\xff\xff" + pickle.dumps("x" * 100, 2)
    peer.sock.sendall(wire.frame(wire.GETVALUE, body, wire.WITH_BUFFERS))
    assert peer.answer()[0] == wire.ERROR
    assert call(peer, "echo", "fine") == "fine"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *[(1, 7), (1, ["unhashable"]), (2, "nobody"), (3, "4711"), (3, 1 << 40)],
        *[(4, None), (4, -1), (5, ["unhashable"]), (5, {})],
    ],
)
def test_garbage_in_a_hello_attaches_nobody(daemon: Daemon, place: int, value: object) -> None:
    """The connection is closed, and no session of it stays to keep the daemon alive."""
    fields: list[object] = [wire.PROTOCOL, "strange", wire.ROLE_CALLS, 4711, 4, None, False]
    fields[place] = value
    stranger = Peer(daemon.call_path)
    stranger.send(wire.HELLO, *fields)
    assert stranger.is_closed()
    daemon.link.send("ping", id=1)
    assert daemon.link.expect("pong")["clients"] == 0


@pytest.mark.parametrize(
    ("kind", "flags", "body"),
    [
        (wire.SEGMENTS, 0, b"no pickle"),
        (wire.SEGMENTS, 0, pickle.dumps([1, 2, 3, 4], 2)),
        (wire.RELEASE, 0, pickle.dumps(["x"], 2)),
        (wire.RETURN, wire.WITH_BUFFERS, b""),
        (wire.RAISE, wire.WITH_BUFFERS, b"short"),
    ],
)
def test_garbage_in_passing_costs_its_connection(
    daemon: Daemon, kind: int, flags: int, body: bytes
) -> None:
    """In what is no request, too: the daemon serves the others on."""
    other = daemon.peer("other")
    peer = daemon.peer()
    peer.sock.sendall(wire.frame(kind, body, flags))
    assert peer.is_closed()
    assert call(other, "echo", 1) == 1


def test_a_release_that_cannot_be_unpickled_costs_its_connection(daemon: Daemon) -> None:
    """It has no answer in which to say so."""
    peer = daemon.peer()
    peer.sock.sendall(wire.frame(wire.RELEASE, b"\x80\x04\x8c\x0bno_such_mod\x8c\x03Cls\x93."))
    assert peer.is_closed()
    assert call(daemon.peer("other"), "echo", 1) == 1


FORKS = """
import os, sys
def fork(how):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] >> 8
    if how == "exit": sys.exit(3)
    if how == "raise": raise ValueError("in the child")
    return 5
def fine(): return 1
"""


@pytest.mark.parametrize(("how", "code"), [("exit", 3), ("raise", 1), ("return", 0)])
def test_a_child_that_comes_back_from_its_fork_ends(bare: Daemon, how: str, code: int) -> None:
    """As a script would: it never serves, nor takes what was meant for its parent."""
    bare.load(FORKS)
    peer = bare.peer()
    assert call(peer, "fork", how) == code
    for n in range(10):
        assert call(bare.peer(f"later {n}"), "fine") == 1


def test_a_client_that_takes_nothing_holds_up_nobody(daemon: Daemon) -> None:
    """Neither by its output nor by its answer; it gets what it can once it goes on."""
    slow, other = daemon.peer("slow"), daemon.peer("other")
    oid = function(slow, "chatter")
    slow.send(wire.CALL, oid, (3000,), {})
    slow.send(wire.CALL, function(other, "echo"), (b"x" * 3_000_000,), {})
    assert call(other, "echo", "quick") == "quick"
    kind, body = slow.answer()
    assert (kind, body) == (wire.VALUE, "done")
    kind, body = slow.answer()
    assert (kind, len(body)) == (wire.VALUE, 3_000_000)


def test_standard_descriptors_closed_by_user_code(daemon: Daemon) -> None:
    """What is printed then is never sent to whoever is connected at that number."""
    peer = daemon.peer()
    call(peer, "close_stdio")
    later = daemon.peer("later")
    later.send(wire.CALL, function(later, "talk"), (), {})
    assert later.frame() == (wire.OUTPUT, 1, b"half a line")
    assert later.frame()[0] == wire.VALUE
