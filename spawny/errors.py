"""Every exception that spawny raises, one tree, split by what the caller should do about it.

An exception that user code raises in a daemon is *not* in this tree: it arrives as its own class
where that class imports here, with the remote traceback as its cause (`RemoteTraceback`); otherwise
as one of a class of the same name, made here, that derives from `RemoteError`.
"""

from __future__ import annotations

__all__ = [
    "CallCancelled",
    "CallTimeout",
    "DaemonDied",
    "DaemonDrifted",
    "DaemonExists",
    "DaemonNotFound",
    "DaemonStartError",
    "DriftWarning",
    "EnvironmentFailed",
    "InterpreterNotFound",
    "InvalidRequest",
    "RemoteError",
    "RemoteTraceback",
    "SerializationError",
    "SpawnyError",
    "StaleModuleWarning",
    "StaleReference",
    "SupervisorUnavailable",
    "UnsafePath",
    "UpgradeFailed",
    "VersionMismatch",
]


class SpawnyError(Exception):
    """The base of every error of spawny's own."""


class InvalidRequest(SpawnyError, ValueError):
    """What was asked for makes no sense as written: a bad name, an unknown option, a wrong type."""


class UnsafePath(SpawnyError):
    """A directory or socket that spawny would use is not private to this user, or too long."""


class DaemonNotFound(SpawnyError, LookupError):
    """No daemon of that name runs, and nothing knows how to start one."""


class DaemonExists(SpawnyError):
    """A daemon of that name runs with another definition; the message says what differs."""


class DaemonStartError(SpawnyError):
    """The interpreter or the definition did not come up.

    `output` is the last text that the daemon wrote (its stderr included), `remote_traceback` the
    traceback of the definition where it was the definition that failed; both may be empty.
    """

    def __init__(self, message: str, *, output: str = "", remote_traceback: str = "") -> None:
        super().__init__(message)
        self.output = output
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        parts = [super().__str__()]
        if self.remote_traceback:
            parts.append(self.remote_traceback.rstrip())
        if self.output:
            parts.append("last output of the daemon:\n" + self.output.rstrip())
        return "\n".join(parts)


class DaemonDied(SpawnyError, ConnectionError):
    """The daemon ended while it was needed.

    `exit_code` is its exit status, `signal_name` the signal that killed it (such as `"SIGKILL"`);
    each is None where it is not known. `output` is the last text in its log.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int | None = None,
        signal_name: str | None = None,
        output: str = "",
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.signal_name = signal_name
        self.output = output


class StaleReference(SpawnyError, ReferenceError):
    """The object behind this proxy is gone: its daemon has ended, and the next one of its name has
    it not by name; or its session has ended."""


class DaemonDrifted(SpawnyError):
    """What a daemon was loaded from has changed since, and on_drift="error" was asked for.

    `drift` is what has changed, a text each.
    """

    def __init__(self, message: str, drift: list[str] | None = None) -> None:
        super().__init__(message)
        self.drift = drift or []


class DriftWarning(UserWarning):
    """What a daemon was loaded from has changed since: its script, modules of the caller's, its
    interpreter, or what is installed for that.

    `drift` is what has changed, a text each.
    """

    def __init__(self, message: str, drift: list[str]) -> None:
        super().__init__(message, drift)
        self.drift = drift

    def __str__(self) -> str:
        return str(self.args[0])


class StaleModuleWarning(DriftWarning):
    """Among that are modules of the caller's own: `modules` is a list of (name, file)."""

    def __init__(self, message: str, drift: list[str], modules: list[tuple[str, str]]) -> None:
        super().__init__(message, drift)
        self.args = message, drift, modules
        self.modules = modules


class CallTimeout(SpawnyError, TimeoutError):
    """A call took longer than its limit."""


class CallCancelled(SpawnyError):
    """A call was cancelled before it ended."""


class SerializationError(SpawnyError, TypeError):
    """An argument, a definition or a result cannot travel; the message names the culprit.

    `proxy` is a proxy of a result for which there is no memory here, else None: it stays there.
    """

    proxy: object = None


class InterpreterNotFound(SpawnyError, LookupError):
    """No such Python interpreter; the message lists those that were found."""


class EnvironmentFailed(SpawnyError):
    """An environment with what is required could not be built.

    `output` is the end of what pip or uv wrote.
    """

    def __init__(self, message: str, *, output: str = "") -> None:
        super().__init__(message)
        self.output = output

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n{self.output.rstrip()}" if self.output else text


class SupervisorUnavailable(SpawnyError, ConnectionError):
    """The supervisor could not be reached or started, or died during a request."""


class UpgradeFailed(SpawnyError):
    """The supervisor could not be upgraded; the one before serves on."""


class VersionMismatch(SpawnyError):
    """Client, supervisor and daemon speak no common version of the protocol."""


class RemoteError(SpawnyError):
    """An exception of a daemon whose class is not importable here.

    Its class has the name of that class, and derives from the nearest of its bases that import,
    too. `type_name` is the qualified name there, `remote_message` its text, `remote_traceback` the
    formatted traceback.
    """

    def __init__(self, type_name: str, remote_message: str, remote_traceback: str = "") -> None:
        super().__init__(type_name, remote_message, remote_traceback)
        self.type_name = type_name
        self.remote_message = remote_message
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.remote_message}"


class RemoteTraceback(Exception):
    """The traceback of an exception in a daemon, as the `__cause__` of the exception here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return "\n" + self.text.rstrip()
