"""A zygote alone, under every interpreter: what it says, and what it forks."""

import array
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.interpreters import Interpreter
from tests.kernel.bare import BOOT, PATIENCE_SECONDS, Link

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="zygotes need Linux")


class Zygote:
    """One that was started, with this process as its supervisor."""

    def __init__(
        self, process: subprocess.Popen[bytes], sock: socket.socket, folder: Path, python: str
    ) -> None:
        self.process = process
        self.sock = sock
        self.folder = folder
        self.python = python
        self.pidfds: list[int] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.settimeout(PATIENCE_SECONDS)
        self.listener.bind(str(folder / "link.sock"))
        self.listener.listen(8)

    def prepare(self, *preload: str, sys_path: tuple[str, ...] = ()) -> dict[str, Any]:
        self.sock.send(json.dumps({"preload": preload, "sys_path": sys_path}).encode())
        return self.hear()

    def hear(self) -> dict[str, Any]:
        """What it says next; an empty message at its end."""
        heard: dict[str, Any] = json.loads(self.sock.recv(65536) or b"{}")
        return heard

    def fork(self, **changes: Any) -> dict[str, Any]:
        name, token, runtime = "bare", "token", str(self.folder)
        header = {
            "id": 5,
            "arguments": [name, token, runtime],
            "command": [self.python, str(BOOT), name, token, runtime],
            "environ": {"COLOUR": "red", "SPAWNY_DAEMON": "bare:token"},
            "cwd": "/",
            **changes,
        }
        with (self.folder / "log").open("ab") as log:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [log.fileno()]))]
            self.sock.sendmsg([json.dumps(header).encode()], rights)
        heard = self.hear()
        if "pid" in heard:
            self.pidfds.append(os.pidfd_open(heard["pid"]))
        return heard

    def link(self) -> Link:
        accepted, _ = self.listener.accept()
        accepted.settimeout(PATIENCE_SECONDS)
        return Link(accepted)

    def close(self) -> None:
        self.sock.close()
        self.listener.close()
        self.process.wait(PATIENCE_SECONDS)
        for pidfd in self.pidfds:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


@contextmanager
def bare_zygote(python: str, protocol: str = "1", room: str = "-" * 400) -> Iterator[Zygote]:
    with tempfile.TemporaryDirectory(prefix="sp-") as name:
        folder = Path(name)
        (folder / "d").mkdir(mode=0o700)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(PATIENCE_SECONDS)
        with theirs:
            process = subprocess.Popen(
                [python, str(BOOT), "--zygote", protocol, str(theirs.fileno()), room],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "SPAWNY_DAEMON": "-" * 1000},
                start_new_session=True,
            )
        zygote = Zygote(process, ours, folder, python)
        try:
            yield zygote
        finally:
            zygote.close()


@pytest.fixture
def zygote(interpreter: Interpreter) -> Iterator[Zygote]:
    with bare_zygote(interpreter.path) as found:
        yield found


def test_a_daemon_that_was_forked_phones_home(zygote: Zygote) -> None:
    """Under the pid that was told, and it takes a definition."""
    assert zygote.prepare("json")["type"] == "ready"
    told = zygote.fork()
    assert (told["type"], told["id"]) == ("forked", 5)
    link = zygote.link()
    hello = link.expect("hello")
    assert (hello["pid"], hello["name"], hello["token"]) == (told["pid"], "bare", "token")
    shown = Path(f"/proc/{told['pid']}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    assert shown[2:] == [b"bare", b"token", str(zygote.folder).encode()]
    shown = Path(f"/proc/{told['pid']}/environ").read_bytes().rstrip(b"\0").split(b"\0")
    assert shown == [b"COLOUR=red", b"SPAWNY_DAEMON=bare:token"]
    link.send("stop", reason="done")
    assert link.expect("ending")["reason"] == "done"
    link.sock.close()


def test_it_ends_with_its_supervisor(zygote: Zygote) -> None:
    """Whether it waits or has not heard anything yet; its daemons live on."""
    zygote.prepare()
    told = zygote.fork()
    zygote.sock.close()
    assert zygote.process.wait(PATIENCE_SECONDS) == 1
    assert not select.select(zygote.pidfds, [], [], 0)[0], f"{told} has ended"


def test_it_does_not_import_for_nobody(zygote: Zygote, tmp_path: Path) -> None:
    """Even in the middle of an import it ends with its supervisor."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    slow = f"import os, time; os.write(os.open({str(fifo)!r}, os.O_WRONLY), b'x'); time.sleep(600)"
    (tmp_path / "slow.py").write_text(slow)
    zygote.sock.send(json.dumps({"preload": ["slow"], "sys_path": [str(tmp_path)]}).encode())
    assert select.select([reader], [], [], PATIENCE_SECONDS)[0]
    os.close(reader)
    zygote.sock.close()
    assert zygote.process.wait(PATIENCE_SECONDS) == -signal.SIGIO


def test_a_new_file_among_the_packages_makes_it_stale(zygote: Zygote, tmp_path: Path) -> None:
    """So does one of the caller's own modules that is edited."""
    (tmp_path / "mine.py").write_text("x = 1")
    assert zygote.prepare("mine", sys_path=(str(tmp_path),))["type"] == "ready"
    (tmp_path / "mine.py").write_text("x = 22")
    told = zygote.fork()
    assert (told["type"], told["is_stale"]) == ("refused", True)
    assert told["reason"] == f"{tmp_path / 'mine.py'} has changed"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cwd": "/nonexistent"}, "No such file or directory"),
        ({"command": ["x" * 5000]}, "its command line is too long"),
    ],
)
def test_what_cannot_be_done_is_refused(changes: dict[str, Any], reason: str) -> None:
    """And the next request is not."""
    with bare_zygote(sys.executable) as zygote:
        zygote.prepare()
        told = zygote.fork(**changes)
        assert (told["type"], told["id"]) == ("refused", 5)
        assert reason in told["reason"]
        assert zygote.fork()["type"] == "forked"


def test_an_environment_that_has_no_room_is_shown_in_part() -> None:
    """The mark, by which a daemon's family is known, always is."""
    with bare_zygote(sys.executable) as zygote:
        zygote.prepare()
        environ = {f"V{n}": "x" * 1000 for n in range(60)}
        told = zygote.fork(environ={**environ, "SPAWNY_DAEMON": "bare:token"})
        link = zygote.link()
        link.expect("hello")
        shown = Path(f"/proc/{told['pid']}/environ").read_bytes().split(b"\0")
        assert shown[0] == b"SPAWNY_DAEMON=bare:token"
        assert shown[1] == b"V59=" + b"x" * 1000
        link.sock.close()


def test_another_protocol_is_refused() -> None:
    """Kernels of several versions may be started by one supervisor."""
    with bare_zygote(sys.executable, protocol="99") as zygote:
        told = zygote.hear()
        assert (told["type"], told["lasts"]) == ("unfit", True)
        assert "another version of spawny" in told["reason"]


def test_an_import_that_raises_makes_it_unfit_for_now() -> None:
    """It may be mended."""
    with bare_zygote(sys.executable) as zygote:
        told = zygote.prepare("no_such_module")
        assert (told["type"], told["lasts"]) == ("unfit", False)
        assert told["reason"].startswith("importing no_such_module raised ModuleNotFoundError: ")
        assert zygote.process.wait(PATIENCE_SECONDS) == 1
