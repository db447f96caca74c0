"""The service manager's protocol, spoken to a real datagram socket and with real descriptors."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from spawny.supervisor.notify import Notifier, listen_fds, watchdog_seconds


class Manager:
    """The receiving end, as a service manager holds it."""

    def __init__(self, address: str) -> None:
        self.environ = {"NOTIFY_SOCKET": address}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(10)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def heard(self) -> dict[str, str]:
        message = self.socket.recv(4096).decode()
        return dict(line.split("=", 1) for line in message.split("\n"))


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[Manager]:
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's own")
    with tempfile.TemporaryDirectory(prefix="sp-") as directory:
        prefix = "@" if request.param == "abstract" else ""
        listening = Manager(f"{prefix}{directory}/notify")
        yield listening
        listening.socket.close()


@pytest.fixture
def notifier(manager: Manager) -> Notifier:
    return Notifier.from_environ(manager.environ)


def test_ready_carries_its_status(manager: Manager, notifier: Notifier) -> None:
    """READY=1 and the first status line travel in one datagram."""
    assert notifier.ready("serving 2 daemons")
    assert manager.heard() == {"READY": "1", "STATUS": "serving 2 daemons"}


def test_ready_alone(manager: Manager, notifier: Notifier) -> None:
    """Without a status none is sent, so that the last one stays."""
    assert notifier.ready()
    assert manager.heard() == {"READY": "1"}


def test_status_is_one_line(manager: Manager, notifier: Notifier) -> None:
    """A newline in a status cannot smuggle in an assignment."""
    assert notifier.status("two\nREADY=1")
    assert manager.heard() == {"STATUS": "two READY=1"}


def test_the_other_messages(manager: Manager, notifier: Notifier) -> None:
    """Stopping, watchdog and the main pid are single assignments."""
    assert notifier.stopping() and notifier.watchdog() and notifier.main_pid(77)
    assert [manager.heard() for _ in range(3)] == [
        {"STOPPING": "1"},
        {"WATCHDOG": "1"},
        {"MAINPID": "77"},
    ]


def test_reloading_says_when(manager: Manager, notifier: Notifier) -> None:
    """RELOADING=1 comes with the monotonic clock, which Type=notify-reload requires."""
    assert notifier.reloading()
    heard = manager.heard()
    assert heard["RELOADING"] == "1"
    assert int(heard["MONOTONIC_USEC"]) > 0


def test_a_manager_that_is_gone_is_no_error(manager: Manager, notifier: Notifier) -> None:
    """A closed socket makes the message unsent, nothing more."""
    manager.socket.close()
    assert notifier.watchdog() is False


def test_a_manager_that_does_not_read_is_no_error(manager: Manager, notifier: Notifier) -> None:
    """A full queue ends in False after a moment, not in a supervisor that hangs."""
    sent = 0
    while notifier.watchdog():
        sent += 1
        assert sent < 100_000
    assert manager.heard() == {"WATCHDOG": "1"}


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "relative", "/" + 200 * "x"])
def test_no_usable_socket_is_no_error(address: str | None) -> None:
    """Without a service manager, or with one that we cannot reach, nothing is sent."""
    environ = {} if address is None else {"NOTIFY_SOCKET": address}
    assert Notifier.from_environ(environ).ready("hello") is False


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "41"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "42"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "x"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_PID": "41"}, None),
    ],
)
def test_watchdog_interval(environ: dict[str, str], seconds: float | None) -> None:
    """Half the limit, when the limit is a number and meant for us."""
    assert watchdog_seconds(environ, pid=41) == seconds


def test_watchdog_is_for_this_process_by_default() -> None:
    """The pid compared with is our own."""
    environ = {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}
    assert watchdog_seconds(environ) == 0.5


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "42"},
        {"LISTEN_FDS": "0", "LISTEN_PID": "41"},
        {"LISTEN_FDS": "-1", "LISTEN_PID": "41"},
        {"LISTEN_PID": "41"},
    ],
)
def test_sockets_of_others_are_not_ours(environ: dict[str, str]) -> None:
    """Variables that we merely inherited, or that pass nothing, give no descriptors."""
    assert listen_fds(environ, pid=41) == {}


# Descriptors 3 and up are free only in a process of its own.
RECEIVER = """
import json, os, socket, sys
from spawny.supervisor.notify import listen_fds
for fd in (3, 4, 5):
    with socket.socket(socket.AF_UNIX) as made:
        if made.fileno() != fd:
            os.dup2(made.fileno(), fd)
        else:
            made.detach()
    os.set_inheritable(fd, True)
names = sys.argv[1]
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": names}
try:
    passed = listen_fds(environ)
except ValueError as error:
    passed = str(error)
print(json.dumps([passed, [os.get_inheritable(fd) for fd in (3, 4, 5)]]))
"""


def receive(names: str) -> tuple[object, list[bool]]:
    output = subprocess.run(
        [sys.executable, "-c", RECEIVER, names], check=True, capture_output=True, text=True
    ).stdout
    passed, inheritable = json.loads(output)
    return passed, inheritable


def test_sockets_come_by_name_and_stay_with_us() -> None:
    """Each passed socket is found by its name; no child will inherit those, and only those."""
    assert receive("control:link") == ({"control": 3, "link": 4}, [False, False, True])


def test_sockets_without_a_name() -> None:
    """A socket whose unit names none has systemd's own word for that."""
    assert receive("control") == ({"control": 3, "unknown": 4}, [False, False, True])


def test_two_sockets_of_one_name_are_refused() -> None:
    """Serving one and silently ignoring the other would look like a hang to its clients."""
    passed, _ = receive("control:control")
    assert "two sockets 'control'" in str(passed)


ACTIVATED = """
import os, socket
from spawny.supervisor.notify import listen_fds
(name, fd), = listen_fds(os.environ).items()
with socket.socket(fileno=fd) as listener:
    with listener.accept()[0] as peer:
        peer.sendall(name.encode())
"""


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="needs systemd")
def test_systemd_passes_us_its_socket() -> None:
    """A process that systemd started for a connection serves it from the inherited socket."""
    with tempfile.TemporaryDirectory(prefix="sp-") as directory:
        path = Path(directory) / "control.sock"
        command = ["systemd-socket-activate", f"--listen={path}", "--fdname=control"]
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        # It says "Listening on ..." on stderr once the socket is there.
        with subprocess.Popen(
            [*command, "--setenv=PYTHONPATH", sys.executable, "-c", ACTIVATED],
            stderr=subprocess.PIPE,
            env=environ,
        ) as activator:
            assert activator.stderr is not None
            assert b"Listening on" in activator.stderr.readline()
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(20)
                client.connect(str(path))
                assert client.recv(100) == b"control"
            assert activator.wait(20) == 0
