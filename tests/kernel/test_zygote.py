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

    def ask(self, name: str = "bare", **changes: Any) -> None:
        """Have one of this name forked."""
        token, runtime = "token", str(self.folder)
        header = {
            "id": 5,
            "arguments": [name, token, runtime],
            "command": "\0".join([self.python, str(BOOT), name, token, runtime]),
            "environ": "COLOUR=red\0SPAWNY_DAEMON=bare:token",
            "cwd": "/",
            **changes,
        }
        with (self.folder / "log").open("ab") as log:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [log.fileno()]))]
            self.sock.sendmsg([json.dumps(header).encode()], rights)

    def fork(self, name: str = "bare", **changes: Any) -> dict[str, Any]:
        """The same, and what it says to that."""
        self.ask(name, **changes)
        return self.hear_fork()

    def hear_fork(self) -> dict[str, Any]:
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
def bare_zygote(
    python: str, protocol: str = "2", room: str = "-" * 400, **variables: str
) -> Iterator[Zygote]:
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
                env={**os.environ, **variables, "SPAWNY_DAEMON": "-" * 1000},
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


def test_many_that_are_asked_for_in_a_row(zygote: Zygote) -> None:
    """Whether it is a rush or not, each is one daemon."""
    zygote.prepare()
    names = [f"bare{number}" for number in range(12)]
    pids = {zygote.fork(name)["pid"] for name in names[:6]}
    for name in names[6:]:
        zygote.ask(name)
    pids |= {zygote.hear_fork()["pid"] for _ in names[6:]}
    links = [zygote.link() for _ in names]
    hellos = [link.expect("hello") for link in links]
    assert sorted(each["name"] for each in hellos) == sorted(names)
    assert {each["pid"] for each in hellos} == pids
    assert len(pids) == 12
    for link in links:
        link.sock.close()


def prepare_rush(zygote: Zygote, folder: Path, code: str = "") -> None:
    """Have it take whatever comes for a rush; `code` runs in the zygote, whose module is `z`."""
    begin = "import errno, os, signal, sys\nz = sys.modules['_spawny_kernel.zygote']\n"
    (folder / "rush.py").write_text(f"{begin}z.RUSH_SECONDS = 600\n{code}")
    assert zygote.prepare("rush", sys_path=(str(folder),))["type"] == "ready"


def waiting(zygote: Zygote) -> list[int]:
    """The processes that wait for a request: of its group, and not its children."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, _, rest = path.read_text().partition(" ")
            parent, group = map(int, rest.rpartition(")")[2].split()[1:3])
            if group == zygote.process.pid not in (int(pid), parent):
                found.append(int(pid))
    return found


def test_in_a_rush_several_wait(zygote: Zygote, tmp_path: Path) -> None:
    """One after the first request, then two, and never more than four."""
    prepare_rush(zygote, tmp_path)
    counts = []
    for number in range(12):
        # It waits for the end of the process between: so all that were forked with it are there.
        zygote.fork(f"bare{number}")
        counts.append(len(waiting(zygote)))
    # Once the last of some has gone the next may be there already, or on their way.
    assert [counts[at] for at in (1, 3, 4, 5, 7, 8, 9, 11)] == [1, 3, 2, 1, 3, 2, 1, 3]


def test_the_next_ones_end_with_the_zygote(tmp_path: Path) -> None:
    """Also where it was killed, and there are several; what became a daemon lives on."""
    with bare_zygote(sys.executable) as zygote:
        prepare_rush(zygote, tmp_path)
        for number in range(4):
            zygote.fork(f"bare{number}")
        zygote.process.kill()
        assert zygote.hear() == {}  # nobody holds the other end any more
        assert {zygote.link().expect("hello")["name"] for _ in range(4)} == {
            "bare0", "bare1", "bare2", "bare3"
        }  # fmt: skip


def test_a_daemon_outlives_a_zygote_that_is_killed_before_it_is_one(tmp_path: Path) -> None:
    """What was told as forked is there."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    slow = f"""
renew = z.renew
def slow(*arguments):
    open({str(fifo)!r}).close()
    renew(*arguments)
z.renew = slow
"""
    with bare_zygote(sys.executable) as zygote:
        prepare_rush(zygote, tmp_path, slow)
        assert zygote.fork()["type"] == "forked"
        zygote.process.kill()
        zygote.process.wait(PATIENCE_SECONDS)
        fifo.open("w").close()
        link = zygote.link()
        assert link.expect("hello")["name"] == "bare"
        link.sock.close()


def test_one_of_several_that_dies_with_a_request_is_noticed(tmp_path: Path) -> None:
    """By the end of all, at once: nobody else would answer that request."""
    deadly = """
call_path = z.call_path
def deadly(runtime, name):
    if name == "victim":
        os.kill(os.getpid(), signal.SIGKILL)
    return call_path(runtime, name)
z.call_path = deadly
"""
    with bare_zygote(sys.executable) as zygote:
        prepare_rush(zygote, tmp_path, deadly)
        for number in range(4):
            zygote.fork(f"bare{number}")
        zygote.ask("victim")
        assert zygote.hear() == {}
        assert zygote.process.wait(PATIENCE_SECONDS) == 1


def test_a_fork_that_fails_costs_none_of_those_before(tmp_path: Path) -> None:
    """Where there is no room for so many processes, those that there are serve."""
    failing = """
own, fork, made = os.getpid(), z._fork, []
def failing():
    if os.getpid() != own and made:
        raise OSError(errno.EAGAIN, "no more processes")
    made.append(1) if os.getpid() != own else None
    return fork()
z._fork = failing
"""
    with bare_zygote(sys.executable) as zygote:
        prepare_rush(zygote, tmp_path, failing)
        assert [zygote.fork(f"bare{number}")["type"] for number in range(5)] == ["forked"] * 5


def test_an_environment_is_that_of_the_request(interpreter: Interpreter, tmp_path: Path) -> None:
    """In its order, without what only the zygote has, and with what an import has done to it."""
    (tmp_path / "changes.py").write_text(
        "import os\nos.environ['SET'] = 'by import'\ndel os.environ['REMOVED']"
    )
    with bare_zygote(interpreter.path, GONE="1", REMOVED="1", KEPT="1") as zygote:
        assert zygote.prepare("changes", sys_path=(str(tmp_path),))["type"] == "ready"
        names = [f"NEW{number}" for number in range(9)]
        given = [f"{name}=1" for name in names]
        zygote.fork(environ="\0".join([*given, "KEPT=2", "REMOVED=1", "SPAWNY_DAEMON=bare:token"]))
        link = zygote.link()
        link.expect("hello")
        script = "import os\nprint(list(os.environ.items()), flush=True)"
        link.load(script)
        link.expect("ready")
        log = (zygote.folder / "log").read_text()
        found = dict(eval(log.splitlines()[-1]))
        assert "GONE" not in found
        assert "REMOVED" not in found
        assert (found["SET"], found["KEPT"], found["NEW8"]) == ("by import", "2", "1")
        assert [name for name in found if name.startswith("NEW")] == names
        link.sock.close()


def test_texts_of_another_locale(interpreter: Interpreter) -> None:
    """What a daemon is given is what its supervisor has, whatever its own locale says."""
    c_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    with bare_zygote(interpreter.path, **c_locale) as zygote:
        assert zygote.prepare()["type"] == "ready"
        mark, directory = "SPAWNY_DAEMON=bare:token", zygote.folder / "grün"
        directory.mkdir()
        environ = "\0".join(["COLOUR=grün", "BYTES=\udcff", "LC_ALL=C", mark])
        told = zygote.fork(environ=environ, cwd=str(directory))
        zygote.link().sock.close()
        process = Path(f"/proc/{told['pid']}")
        shown = (process / "environ").read_bytes().rstrip(b"\0")
        assert shown == environ.encode("utf-8", "surrogateescape")
        assert (process / "cwd").readlink() == directory


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
        ({"command": "x" * 5000}, "its command line is too long"),
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
        environ = [f"V{n}=" + "x" * 1000 for n in range(60)]
        told = zygote.fork(environ="\0".join([*environ, "SPAWNY_DAEMON=bare:token"]))
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
