"""The user units: systemd accepts them, and they say what the supervisor relies on."""

import configparser
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from spawny import paths

UNITS = Path(__file__).parents[1] / "systemd"
SERVICE = UNITS / "spawny-supervisor.service"
SOCKET = UNITS / "spawny-supervisor.socket"


def parse(unit: Path) -> configparser.ConfigParser:
    # Strict: a key given twice is an error. No interpolation: % begins a systemd specifier.
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.read_text())
    return parser


def verify(home: Path, *units: Path) -> subprocess.CompletedProcess[str]:
    """What systemd says of the units for a user with this home directory."""
    runtime = home / "runtime"
    runtime.mkdir(mode=0o700, exist_ok=True)
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime)}
    return subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", *map(str, units)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def user_home(tmp_path: Path) -> Path:
    """A home directory with an executable where the service expects the supervisor."""
    program = tmp_path / ".local/bin/spawny-supervisor"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return tmp_path


needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="needs systemd-analyze"
)


@needs_systemd
def test_systemd_accepts_the_units(user_home: Path) -> None:
    """Both units load together without an error or a warning of theirs."""
    verified = verify(user_home, SERVICE, SOCKET)
    complaints = [line for line in verified.stderr.splitlines() if "spawny" in line]
    assert (verified.returncode, complaints) == (0, [])


@needs_systemd
def test_the_service_starts_the_supervisor_from_the_home(user_home: Path) -> None:
    """Without the program in ~/.local/bin systemd objects: that is the one it would start."""
    (user_home / ".local/bin/spawny-supervisor").unlink()
    verified = verify(user_home, SERVICE, SOCKET)
    assert verified.returncode != 0
    assert f"{user_home}/.local/bin/spawny-supervisor" in verified.stderr


def test_the_socket_is_where_clients_look() -> None:
    """systemd binds the very path that a client computes, closed to others."""
    unit = parse(SOCKET)["Socket"]
    runtime = Path("/run/user/1000/spawny")
    located = paths.Paths(runtime, Path("/s"), Path("/c"), Path("/k")).supervisor_socket
    assert unit["ListenStream"].replace("%t", "/run/user/1000") == str(located)
    assert (unit["SocketMode"], unit["DirectoryMode"]) == ("0600", "0700")


def test_daemons_outlive_the_supervisor() -> None:
    """Nothing in the service kills its daemons or removes their sockets when it stops."""
    unit = parse(SERVICE)["Service"]
    assert (unit["KillMode"], unit["OOMPolicy"]) == ("process", "continue")
    assert "RuntimeDirectory" not in unit


def test_a_reload_is_the_signal_for_it() -> None:
    """`systemctl reload` has a supervisor with --service read its configuration again."""
    unit = parse(SERVICE)["Service"]
    assert unit["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert unit["ExecStart"].endswith("--service")


def test_the_service_installs_its_socket() -> None:
    """Enabling the service enables the socket that it gets its listener from."""
    unit = parse(SERVICE)
    assert unit["Install"]["Also"] == unit["Unit"]["Requires"] == SOCKET.name
