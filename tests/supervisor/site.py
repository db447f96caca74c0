"""A real supervisor process under a home of its own, and a client of its."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import zmq

from spawny import control
from spawny.paths import locate

REPOSITORY = Path(__file__).parents[2]
FAKE_DAEMON = str(Path(__file__).with_name("fake_daemon.py"))

# The first argument is what daemons are started with in place of the kernel.
RUN = """
import sys
from spawny.supervisor.run import main
sys.exit(main(sys.argv[2:], boot=sys.argv[1]))
"""

SECONDS = 30


class Supervised:
    """Where supervisors run, one after the other or at once."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.paths = locate({"SPAWNY_HOME": str(home)})
        self.environ = {
            **os.environ,
            "SPAWNY_HOME": str(home),
            "SPAWNY_SOURCE": str(REPOSITORY),
            "PYTHONPATH": str(REPOSITORY),
        }
        self.supervisors: list[subprocess.Popen[str]] = []
        self.pids: list[int] = []

    def configure(self, **figures: float) -> None:
        self.paths.config.mkdir(parents=True, exist_ok=True)
        lines = [f"{name} = {value}" for name, value in figures.items()]
        self.paths.config_file.write_text("\n".join(["[supervisor]", *lines]))

    def launch(
        self,
        *arguments: str,
        boot: str | None = FAKE_DAEMON,
        pass_fds: tuple[int, ...] = (),
        within: Sequence[str] = (),
    ) -> subprocess.Popen[str]:
        """A supervisor, not waited for; its log is its stderr."""
        run = ["-m", "spawny.supervisor"] if boot is None else ["-c", RUN, boot]
        supervisor = subprocess.Popen(
            [*within, sys.executable, *run, *arguments],
            cwd="/",
            env=self.environ,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=pass_fds,
        )
        self.supervisors.append(supervisor)
        return supervisor

    def start(
        self, *arguments: str, boot: str | None = FAKE_DAEMON, within: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        """A supervisor that serves; `within` is a command that runs it."""
        reader, writer = os.pipe()
        supervisor = self.launch(
            "--ready-fd", str(writer), *arguments, boot=boot, pass_fds=(writer,), within=within
        )
        os.close(writer)
        with open(reader, encoding="ascii") as ready:
            said = ready.readline() if within else ready.read()
        if said != "READY\n":
            raise AssertionError(f"not ready: {said!r}\n{supervisor.communicate()[1]}")
        return supervisor

    def log_of(self, supervisor: subprocess.Popen[str]) -> str:
        """What it wrote; it has to be ending."""
        return supervisor.communicate(timeout=SECONDS)[1]

    @contextmanager
    def client(self) -> Iterator["Client"]:
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.connect(f"ipc://{self.paths.supervisor_socket}")
        try:
            yield Client(self, socket)
        finally:
            context.destroy(linger=0)

    def request(self, name: str, word: str = "ready", /, **changes: Any) -> control.StartDaemon:
        base = control.StartDaemon(
            name=name,
            token=os.urandom(8).hex(),
            digest=word,
            summary=f"does {word}",
            python=sys.executable,
            python_is_default=True,
            caller_python=sys.executable,
            environ=self.environ,
            cwd="/",
            sys_path=[],
            definition=word.encode(),
        )
        return replace(base, **changes)

    def close(self) -> None:
        for supervisor in self.supervisors:
            supervisor.kill()
            supervisor.wait()
            assert supervisor.stderr is not None
            supervisor.stderr.close()
        for pid in self.pids:
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


class Client:
    """One connection, with questions asked one by one."""

    def __init__(self, site: Supervised, socket: "zmq.Socket[bytes]") -> None:
        self._site = site
        self._socket = socket
        self._number = 0

    def send(self, message: control.Message) -> int:
        self._number += 1
        self._socket.send_multipart(control.encode(message, self._number))
        return self._number

    def receive(self) -> control.Envelope:
        assert self._socket.poll(SECONDS * 1000), "no answer"
        return control.decode(self._socket.recv_multipart())

    def ask(self, message: control.Message) -> Any:
        """The answer; `Progress` and events on the way are passed over."""
        number = self.send(message)
        while True:
            envelope = self.receive()
            if envelope.request_id == number and not isinstance(envelope.message, control.Progress):
                return envelope.message

    def start(self, name: str, word: str = "ready", **changes: Any) -> control.Started:
        """A daemon that is to come up."""
        started = self.ask(self._site.request(name, word, **changes))
        assert isinstance(started, control.Started), started
        self._site.pids.append(started.pid)
        return started

    def status(self, name: str) -> control.DaemonStatus:
        listing = self.ask(control.ListDaemons(name))
        assert isinstance(listing, control.Listing), listing
        return listing.daemons[0]

    def watch(self) -> None:
        assert self.ask(control.WatchEvents()) == control.Done("watching")

    def until(self, kind: str, name: str) -> control.Event:
        """The next event of this kind about this daemon."""
        while True:
            message = self.receive().message
            if isinstance(message, control.Event) and (message.kind, message.name) == (kind, name):
                return message


def wait_gone(pid: int) -> None:
    """Return when the process has ended; it need not be a child."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([pidfd], [], [], SECONDS)
        assert ready, f"process {pid} lives on"
    finally:
        os.close(pidfd)
