"""What a service manager says to the supervisor, and the supervisor to it.

The one rule: a service manager is a listener, never a dependency. Nothing here raises because it is
absent, gone or deaf; a supervisor in a terminal runs the same code.

This is systemd's protocol (sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3)), which needs a
datagram and a few variables and so no library. The environment comes in as a mapping.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

# sd_listen_fds(3): passed descriptors follow stdin, stdout and stderr.
FIRST_LISTEN_FD = 3

# What systemd calls a descriptor whose socket unit names none.
UNNAMED = "unknown"

# The manager's receive buffer is full when it is stuck: wait for it a little, since a lost READY=1
# fails the start, but never hold the event loop for long.
SEND_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Notifier:
    """Tells the service manager how the supervisor is; says nothing where there is none.

    Every method answers whether the message was sent.
    """

    address: str | None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Notifier:
        return cls(environ.get("NOTIFY_SOCKET") or None)

    def ready(self, status: str = "") -> bool:
        """Start-up (or a reload) is complete."""
        return self._send("READY=1", *_status(status))

    def status(self, text: str) -> bool:
        """One line for `systemctl status`."""
        return self._send(*_status(text))

    def reloading(self) -> bool:
        """The configuration is being read again; `ready` must follow."""
        # Type=notify-reload matches the reload by this clock reading.
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str = "") -> bool:
        return self._send("STOPPING=1", *_status(status))

    def watchdog(self) -> bool:
        """The caller is alive, and has checked that it is."""
        return self._send("WATCHDOG=1")

    def main_pid(self, pid: int) -> bool:
        return self._send(f"MAINPID={pid}")

    def _send(self, *assignments: str) -> bool:
        address = _socket_address(self.address)
        if address is None or not assignments:
            return False
        try:
            # A socket per message: it is sent every few seconds at most, and a manager that was
            # restarted (daemon-reexec) is found again.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
                speaker.settimeout(SEND_SECONDS)
                speaker.connect(address)
                speaker.sendall("\n".join(assignments).encode())
        except OSError:
            return False
        return True


def _status(text: str) -> list[str]:
    # A newline would begin the next assignment.
    return [f"STATUS={' '.join(text.split())}"] if text else []


def _socket_address(address: str | None) -> str | None:
    """The address as `connect` wants it; None where it is no unix socket."""
    if not address:
        return None
    if address.startswith("@"):
        # Linux's abstract namespace: the @ stands for a NUL byte.
        return "\0" + address[1:]
    # systemd also knows vsock:, which only reaches a virtual machine's host.
    return address if address.startswith("/") else None


def watchdog_seconds(environ: Mapping[str, str], pid: int | None = None) -> float | None:
    """How often to send WATCHDOG=1: half the manager's limit, or None when it watches nobody.

    Args:
        environ: The environment that the service manager made.
        pid: Who asks; this process by default. A limit for another process is none of ours.
    """
    if not _is_for(environ, "WATCHDOG_PID", pid, required=False):
        return None
    limit = _whole(environ.get("WATCHDOG_USEC"))
    return limit / 2 / 1_000_000 if limit else None


def listen_fds(environ: Mapping[str, str], pid: int | None = None) -> dict[str, int]:
    """The listening sockets that the manager opened for us, by the names in their socket units.

    They are made close-on-exec: a daemon must not inherit the supervisor's sockets.

    Raises `ValueError` when two share a name: one of them would never be served.
    """
    if not _is_for(environ, "LISTEN_PID", pid, required=True):
        return {}
    count = _whole(environ.get("LISTEN_FDS"))
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    passed: dict[str, int] = {}
    for index in range(count):
        fd = FIRST_LISTEN_FD + index
        name = (names[index] if index < len(names) else "") or UNNAMED
        os.set_inheritable(fd, False)
        if name in passed:
            raise ValueError(
                f"LISTEN_FDNAMES names two sockets {name!r}; give each socket unit its own"
                " FileDescriptorName"
            )
        passed[name] = fd
    return passed


def _is_for(environ: Mapping[str, str], variable: str, pid: int | None, *, required: bool) -> bool:
    """Whether the pid in `variable` is ours: the variables are inherited by whoever we start."""
    meant = environ.get(variable)
    if not meant:
        return not required
    return _whole(meant) == (os.getpid() if pid is None else pid)


def _whole(text: str | None) -> int:
    """The number, or 0 for anything that is not one."""
    return int(text) if text and text.isascii() and text.isdigit() else 0
