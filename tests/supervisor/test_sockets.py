"""The control plane's socket, with real clients."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from spawny import control
from spawny.supervisor import sockets
from spawny.supervisor.sockets import ControlSocket, Outcome, Received, listen
from spawny.supervisor.watch import Watch


class Clients:
    """A socket under test, and DEALERs that connect to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = ControlSocket(listen(path), path)
        self.watch = Watch()
        self.context = zmq.Context()

    def connect(self) -> zmq.Socket[bytes]:
        dealer = self.context.socket(zmq.DEALER)
        dealer.linger = 0
        dealer.connect(f"ipc://{self.path}")
        return dealer

    def receive(self) -> list[Received]:
        """What comes next."""
        has_requests, _ = self.socket.wait(self.watch, 30)
        assert has_requests
        return list(self.socket.receive())

    def close(self) -> None:
        self.context.destroy(linger=0)
        self.socket.close()
        self.watch.close()


@pytest.fixture
def clients(home: Path) -> Iterator[Clients]:
    clients = Clients(home / "s")
    yield clients
    clients.close()


def answer(dealer: zmq.Socket[bytes]) -> control.Envelope:
    assert dealer.poll(30_000)
    return control.decode(dealer.recv_multipart())


def test_a_request_and_its_answer(clients: Clients) -> None:
    """The request's number comes back with the answer."""
    dealer = clients.connect()
    dealer.send_multipart(control.encode(control.ListDaemons(), 42))
    (received,) = clients.receive()
    assert received.message == control.ListDaemons()
    assert clients.socket.send(received.caller, control.Listing(())) is Outcome.SENT
    assert answer(dealer) == control.Envelope(42, control.Listing(()))


def test_only_the_owner_can_connect(clients: Clients) -> None:
    """The file is closed to others from the moment it exists."""
    assert stat.S_IMODE(os.stat(clients.path).st_mode) == 0o600


def test_libzmq_leaves_our_path_alone(clients: Clients) -> None:
    """It must neither unlink the path when it binds nor when it closes: it may be another's."""
    before = os.stat(clients.path)
    dealer = clients.connect()
    dealer.send_multipart(control.encode(control.Hello("1")))
    clients.receive()
    assert os.path.samestat(os.stat(clients.path), before)
    clients.socket.close()
    assert os.path.samestat(os.stat(clients.path), before)


def test_listening_takes_a_stale_path_over(home: Path) -> None:
    """A supervisor that was killed left its socket; the lock says that it is dead."""
    stale = listen(home / "s")
    stale.close()
    listen(home / "s").close()


@pytest.mark.parametrize(
    ("frames", "error", "number"),
    [
        ([b"garbage"], "InvalidRequest", 0),
        ([b""], "InvalidRequest", 0),
        ([b'{"id": 7, "protocol": 1, "type": "Explode"}'], "InvalidRequest", 7),
        ([b'{"id": 7, "protocol": 99, "type": "FindDaemon"}'], "VersionMismatch", 7),
        ([*control.encode(control.Shutdown(), 7), b"more"], "InvalidRequest", 7),
    ],
)
def test_what_is_no_message_is_refused(
    clients: Clients, frames: list[bytes], error: str, number: int
) -> None:
    """To its sender, under its number where that can be read; the next message is served."""
    dealer = clients.connect()
    dealer.send_multipart(frames)
    dealer.send_multipart(control.encode(control.Hello("1"), 8))
    received = clients.receive()
    received = received or clients.receive()
    assert [each.message for each in received] == [control.Hello("1")]
    refused = answer(dealer)
    assert refused.request_id == number
    assert isinstance(refused.message, control.Refused)
    assert refused.message.error == error


def test_a_message_without_frames_is_refused(clients: Clients) -> None:
    """A REQ socket's empty delimiter alone, say."""
    bare = clients.context.socket(zmq.DEALER)
    bare.connect(f"ipc://{clients.path}")
    bare.send(b"")
    assert clients.receive() == []
    assert isinstance(answer(bare).message, control.Refused)


def test_a_client_that_left_is_gone(clients: Clients) -> None:
    """The answer finds nobody, and that is no error."""
    dealer = clients.connect()
    dealer.send_multipart(control.encode(control.Hello("1")))
    (received,) = clients.receive()
    dealer.close()
    # How soon libzmq notices is up to its own thread: until then it still takes the messages.
    outcomes = (clients.socket.send(received.caller, control.Done()) for _ in range(1_000_000))
    assert next(each for each in outcomes if each is not Outcome.SENT) is Outcome.GONE


def test_a_client_that_does_not_read_blocks_nobody(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its queue fills up; others are served."""
    deaf, other = clients.connect(), clients.connect()
    deaf.send_multipart(control.encode(control.WatchEvents()))
    (received,) = clients.receive()
    event = control.Event("ready", "etl", 1.0, "x" * 10_000)
    outcomes = (clients.socket.send(received.caller, event) for _ in range(100_000))
    assert next(each for each in outcomes if each is not Outcome.SENT) is Outcome.FULL
    other.send_multipart(control.encode(control.Hello("1"), 3))
    (hello,) = clients.receive()
    assert clients.socket.send(hello.caller, control.Done()) is Outcome.SENT
    assert answer(other).message == control.Done()


def test_other_descriptors_are_waited_for_too(clients: Clients) -> None:
    """One wait for everything; a time as well."""
    reader, writer = os.pipe()
    clients.watch.put(reader, writes=False)
    clients.watch.put(writer, writes=True)
    assert clients.socket.wait(clients.watch, 30) == (False, {writer: True})
    clients.watch.drop(writer)
    os.write(writer, b"x")
    assert clients.socket.wait(clients.watch, None) == (False, {reader: False})
    os.read(reader, 1)
    assert clients.socket.wait(clients.watch, 0) == (False, {})
    assert clients.socket.wait(clients.watch, 0.0001) == (False, {})
    clients.watch.drop(reader)
    os.close(reader)
    os.close(writer)


def test_a_wait_of_years_is_possible(clients: Clients) -> None:
    """A client may ask for any timeout; poll() takes 32 bits of milliseconds."""
    dealer = clients.connect()
    dealer.send_multipart(control.encode(control.Hello("1")))
    assert clients.socket.wait(clients.watch, 1e300)[0]


def test_a_flood_is_taken_in_portions(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that daemons are looked after in between."""
    monkeypatch.setattr(sockets, "_BATCH_MESSAGES", 2)
    dealer = clients.connect()
    for number in range(5):
        dealer.send_multipart(control.encode(control.Hello("1"), number))
    got: list[Received] = []
    while len(got) < 5:
        portion = clients.receive()
        assert len(portion) <= 2
        got += portion
    assert [each.caller.request_id for each in got] == [0, 1, 2, 3, 4]
