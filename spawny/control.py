"""The control plane's messages and their one codec.

Inside, a message is a frozen dataclass; on the wire it is a JSON frame, then one binary frame for
each `bytes` field in order of declaration. Decoding checks every field against its annotation, so
that whatever comes out of `decode` is valid and nothing past it needs to look again. Binary frames
are opaque: neither side of this codec ever unpickles.

`protocol` in a header is the oldest protocol in which this very message can be said. So a client
need not know what the supervisor is: whatever an older one can understand, it does, and the rest it
refuses with `VersionMismatch`. `FROZEN` messages are read whatever their protocol, so that any two
versions can always list, stop, and say what they are.
"""

from __future__ import annotations

import contextlib
import json
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Literal

from . import __version__, errors

PROTOCOL = 2

# Fields that a newer one adds to these have a default and change no meaning.
FROZEN = frozenset({"Hello", "Welcome", "ListDaemons", "Listing", "StopDaemon", "Done", "Refused"})

# A header holds at most the caller's environment and a list of statuses; 300 daemons make 200 KB.
HEADER_LIMIT_BYTES = 8 * 1024 * 1024
# A definition that carries data: generous, yet it cannot fill the machine's memory by accident.
FRAME_LIMIT_BYTES = 1024 * 1024 * 1024

IfExists = Literal["attach", "replace", "error"]
Restart = Literal["never", "on-failure", "always"]
Output = Literal["forward", "log"]


class Message:
    """The base of the closed family below."""


def since(protocol: int, default: Any) -> Any:
    """A field that came with this protocol: an older supervisor must not skip it unseen, and so is
    sent it only where it has its default."""
    return field(default=default, metadata={"since": protocol})


# --- requests, client to supervisor -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """Who are you? Answered by `Welcome`, whatever the versions."""

    version: str


@dataclass(frozen=True, slots=True)
class StartDaemon(Message):
    """Start a daemon, or find the one that already runs under this name.

    Answered by `Started` once the daemon's call socket listens (the definition may still be
    loading: its end is told on that socket), or by `Refused`. `token` identifies this one request:
    when it is sent again because a supervisor died in between, no second daemon starts.
    `python` is a path, a venv directory or a version; `caller_python` the client's own executable.
    One that is not `is_named` has a generated name, and its log goes with it when it ends well.
    `max_rss` is in bytes, `max_age` and `call_deadline` are in seconds.
    `kernel` is the client's own `boot.py`, so that the daemon speaks the client's call protocol;
    where that file is gone, as after an upgrade, or not given, the supervisor's own is used.
    `replaces` is the pid of the process that if_exists="replace" is to replace, and no other.
    """

    name: str
    token: str
    digest: str
    summary: str
    python: str
    python_is_default: bool
    caller_python: str
    environ: dict[str, str]
    cwd: str
    sys_path: list[str]
    if_exists: IfExists = "attach"
    idle_timeout: float | None = None
    restart: Restart = "never"
    start_timeout: float = 60.0
    output: Output = "forward"
    preload: list[str] = field(default_factory=list)
    is_named: bool = True
    kernel: str = ""
    asked_by: str = ""
    max_rss: int | None = since(2, None)
    max_calls: int | None = since(2, None)
    max_age: float | None = since(2, None)
    call_deadline: float | None = since(2, None)
    replaces: int | None = since(2, None)
    definition: bytes = b""

    @property
    def mark(self) -> str:
        """What the daemon, and all that comes out of it, is known by in its environment."""
        return f"{self.name}:{self.token}"


@dataclass(frozen=True, slots=True)
class FindDaemon(Message):
    """Where is this daemon? Answered by `Started` once it can be reached: at once for one that
    runs, later for one that is starting or will be restarted by its policy; starts nothing."""

    name: str


@dataclass(frozen=True, slots=True)
class ListDaemons(Message):
    """The status of every daemon, or of the one named: `Listing`, fresh from the daemons."""

    name: str | None = None


@dataclass(frozen=True, slots=True)
class ListZygotes(Message):
    """Which processes are there to be forked? Answered by `ZygoteListing`."""


@dataclass(frozen=True, slots=True)
class StopDaemon(Message):
    """End a daemon: asked, then SIGTERM, then SIGKILL. Answered by `Done` when it is gone.

    `token` identifies this one request, here and in the others that must not be carried out twice.
    It is sent `again` when the connection was lost: a supervisor that cannot know what became of it
    refuses it then. `asked_by` says who asks, for `ExplainDaemon`: a pid and a command.
    """

    name: str
    reason: str = "stop requested"
    token: str = ""
    again: bool = since(2, False)
    asked_by: str = ""


@dataclass(frozen=True, slots=True)
class RestartDaemon(Message):
    """Stop it if it runs, and start it anew from its own definition; answered by `Started`."""

    name: str
    token: str = ""
    again: bool = since(2, False)
    asked_by: str = ""


@dataclass(frozen=True, slots=True)
class RenewDaemon(RestartDaemon):
    """The same for one that has drifted, as soon as no call runs there, and only where `pid` is its
    process still: of several clients that find so, one has it restarted. With a `digest` it has
    this definition from now on, as where the script that it was started from was edited."""

    pid: int = 0
    digest: str = ""
    summary: str = ""
    definition: bytes = b""


@dataclass(frozen=True, slots=True)
class InterruptDaemon(Message):
    """Raise KeyboardInterrupt in the call that runs there; `Done` without a detail: none did."""

    name: str
    token: str = ""
    again: bool = since(2, False)


@dataclass(frozen=True, slots=True)
class ExplainDaemon(Message):
    """Why is it in its state, and how did it end last? Answered by `Explanation`."""

    name: str


@dataclass(frozen=True, slots=True)
class DumpStacks(Message):
    """What does each of its threads do? Answered by `Stacks`, without stopping it."""

    name: str


@dataclass(frozen=True, slots=True)
class WatchEvents(Message):
    """Answered by `Done`; then every `Event`, paired with this request, until `UnwatchEvents`.

    A client that disconnects, or reads so slowly that its queue fills up, is sent no more.
    """


@dataclass(frozen=True, slots=True)
class UnwatchEvents(Message):
    """No more events; answered by `Done`."""


@dataclass(frozen=True, slots=True)
class Shutdown(Message):
    """Stop every daemon, then the supervisor. `Progress` for each, `Done` at the end."""

    token: str = ""
    again: bool = since(2, False)
    asked_by: str = ""


@dataclass(frozen=True, slots=True)
class Upgrade(Message):
    """Become the supervisor of the spawny that `python` imports with this PYTHONPATH, in place.

    Answered by `Done` at the very end, before the connection is lost, or by `Refused` with what the
    new version said when it was tried.
    """

    python: str
    python_path: str = ""


@dataclass(frozen=True, slots=True)
class Reload(Message):
    """Read the configuration again: answered by `Reloaded`. `dry_run` only tells what would change.

    Refused with all that is wrong with the file, where anything is; then nothing changes.
    """

    dry_run: bool = False


# --- replies and reports, supervisor to client --------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome(Message):
    """The supervisor's own version, process id, start command's interpreter and newest protocol."""

    version: str
    pid: int
    python: str
    service: bool
    protocol: int = 1


@dataclass(frozen=True, slots=True)
class Started(Message):
    """The daemon that serves this name now; `existing` where it ran before the request."""

    name: str
    pid: int
    python: str
    existing: bool


@dataclass(frozen=True, slots=True)
class DaemonStatus(Message):
    """One daemon, as seen a moment ago. Times are in seconds, sizes in bytes.

    `state` is one word for people: starting, loading, ready, busy, stopping, waiting (to be
    restarted), failed, stopped (by SIGSTOP), zombie (its main thread has ended, others go on),
    uninterruptible (in a wait of the kernel for over a second), unresponsive, unlinked; ended only
    where it was asked for by name. `cpu_percent` is of one core. `reason` says why it is in that
    state, or why it last ended; `exit_code` or `signal_name` how, where that is known. `drift` is
    what has changed since it was loaded, a text each.
    """

    name: str
    state: str
    pid: int | None
    python: str
    uptime_seconds: float
    rss_bytes: int
    cpu_percent: float
    clients: int
    calls: int
    restarts: int
    version: str = ""
    summary: str = ""
    reason: str = ""
    busy_seconds: float | None = None
    busy_call: str | None = None
    busy_client_pid: int | None = None
    idle_timeout: float | None = None
    restart: str = "never"
    log: str = ""
    exit_code: int | None = None
    signal_name: str | None = None
    calls_failed: int = 0
    call_p50_seconds: float | None = None
    call_p90_seconds: float | None = None
    call_p99_seconds: float | None = None
    max_rss: int | None = None
    max_calls: int | None = None
    max_age: float | None = None
    call_deadline: float | None = None
    restart_reason: str = ""
    drift: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ZygoteStatus(Message):
    """One zygote (state starting or ready), or a kind of daemons that cannot be forked (unfit).

    `idle_seconds` is 0 while a daemon of it runs; `forks` is how many it has made, `daemons` how
    many of these run. A `reason` says why a kind is unfit.
    """

    python: str
    preload: list[str]
    state: str
    pid: int | None = None
    age_seconds: float = 0.0
    idle_seconds: float = 0.0
    forks: int = 0
    daemons: int = 0
    rss_bytes: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ZygoteListing(Message):
    """The answer to `ListZygotes`."""

    zygotes: tuple[ZygoteStatus, ...]


@dataclass(frozen=True, slots=True)
class Listing(Message):
    """The answer to `ListDaemons`, ordered by name."""

    daemons: tuple[DaemonStatus, ...]


@dataclass(frozen=True, slots=True)
class Ending(Message):
    """How one process of a daemon ended.

    `how` says it in words; `exit_code` or `signal_name` where that is known. `is_out_of_memory`:
    most likely the system killed it for want of memory. `asked_by` is who asked for the end.
    """

    seconds_ago: float
    uptime_seconds: float
    pid: int | None
    how: str
    exit_code: int | None = None
    signal_name: str | None = None
    is_out_of_memory: bool = False
    asked_by: str = ""


@dataclass(frozen=True, slots=True)
class Explanation(Message):
    """Why a daemon is in its state, in a sentence, and how its last processes ended, the latest
    first. `output` is the end of what the latest of these wrote, `log` the file that has all."""

    name: str
    state: str
    why: str
    endings: tuple[Ending, ...] = ()
    output: str = ""
    log: str = ""


@dataclass(frozen=True, slots=True)
class Stacks(Message):
    """The stack of each thread. Where the daemon could not answer, `problem` says why, and `text`
    is what the system knows of its threads."""

    text: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Done(Message):
    """It is done; `detail` says how, in words (`ended by SIGTERM after 5 s`)."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class Reloaded(Message):
    """What changes, a line each; empty where nothing does."""

    changes: list[str]


@dataclass(frozen=True, slots=True)
class Progress(Message):
    """A step of a long request; the answer is still to come."""

    detail: str


@dataclass(frozen=True, slots=True)
class Event(Message):
    """Something that happened to a daemon: started, ready, died, ended and so on, see the docs.

    `time` is seconds since the epoch. What concerns the supervisor itself has an empty name.
    """

    kind: str
    name: str
    time: float
    detail: str = ""
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Refused(Message):
    """The request failed: the name of a class in `spawny.errors`, its message and attributes."""

    error: str
    message: str
    output: str = ""
    remote_traceback: str = ""
    exit_code: int | None = None
    signal_name: str | None = None

    def exception(self) -> errors.SpawnyError:
        """The exception to raise at the client."""
        kind = getattr(errors, self.error, errors.SpawnyError)
        if kind is errors.DaemonStartError:
            return errors.DaemonStartError(
                self.message, output=self.output, remote_traceback=self.remote_traceback
            )
        if kind is errors.DaemonDied:
            return errors.DaemonDied(
                self.message,
                exit_code=self.exit_code,
                signal_name=self.signal_name,
                output=self.output,
            )
        if not (isinstance(kind, type) and issubclass(kind, errors.SpawnyError)):
            kind = errors.SpawnyError
        return kind(self.message)


_MESSAGES: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (
        Hello,
        StartDaemon,
        FindDaemon,
        ListDaemons,
        ListZygotes,
        StopDaemon,
        RestartDaemon,
        RenewDaemon,
        InterruptDaemon,
        ExplainDaemon,
        DumpStacks,
        WatchEvents,
        UnwatchEvents,
        Shutdown,
        Upgrade,
        Reload,
        Welcome,
        Started,
        DaemonStatus,
        ZygoteStatus,
        ZygoteListing,
        Listing,
        Ending,
        Explanation,
        Stacks,
        Done,
        Reloaded,
        Progress,
        Event,
        Refused,
    )
}


# The protocol that each request came with, where it was not the first.
_SINCE: dict[str, int] = {
    "Upgrade": 2,
    "Reload": 2,
    "Reloaded": 2,
    "RenewDaemon": 2,
    "ExplainDaemon": 2,
    "DumpStacks": 2,
    "ListZygotes": 2,
}


class MalformedMessage(ValueError):
    """These frames are no message of this protocol; the text says what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message with the number that pairs a reply with its request (0: nobody asked)."""

    request_id: int
    message: Message


def encode(message: Message, request_id: int = 0) -> list[bytes]:
    """The frames of a message."""
    binary: list[bytes] = []
    header = header_of(message, request_id, binary)
    return [json.dumps(header, separators=(",", ":")).encode(), *binary]


def header_of(
    message: Message, request_id: int = 0, binary: list[bytes] | None = None
) -> dict[str, Any]:
    """The first frame as what its JSON says; what the others are is added to `binary`."""
    return {
        "protocol": protocol_of(message),
        "id": request_id,
        "type": type(message).__name__,
        "body": _to_json(message, [] if binary is None else binary),
    }


def protocol_of(message: Message) -> int:
    """The oldest protocol in which this can be said."""
    needed = _SINCE.get(type(message).__name__, 1)
    for each in fields(message):  # type: ignore[arg-type]  # every Message is a dataclass
        came = each.metadata.get("since", 1)
        if came > needed and getattr(message, each.name) != each.default:
            needed = came
    return needed


def decode(frames: Sequence[bytes]) -> Envelope:
    """The message in these frames.

    Raises `MalformedMessage`, or `errors.VersionMismatch` for a well-formed header of a newer
    protocol (`FROZEN` messages are read whatever their protocol).
    """
    if not frames:
        raise MalformedMessage("no frames")
    header = _parse_header(frames[0])
    request_id = header.get("id")
    if not isinstance(request_id, int) or isinstance(request_id, bool):
        raise MalformedMessage("the header has no request id")
    type_name = str(header.get("type"))
    protocol: Any = header.get("protocol")
    if type_name not in FROZEN and not (_is_int(protocol) and 1 <= protocol <= PROTOCOL):
        raise errors.VersionMismatch(
            f"{type_name} needs control protocol {protocol!r}, and this is spawny {__version__},"
            f" which speaks {PROTOCOL} and older: spawny supervisor upgrade, run from the newer one"
        )
    kind = _MESSAGES.get(type_name)
    if kind is None:
        raise MalformedMessage(f"there is no message type {header.get('type')!r}")
    binary = list(frames[1:])
    message = _from_json(kind, header.get("body"), binary)
    if binary:
        raise MalformedMessage(f"{kind.__name__} came with {len(binary)} frames too many")
    return Envelope(request_id, message)


def peek_request_id(frames: Sequence[bytes]) -> int:
    """The request id of frames that `decode` refused, so that the refusal finds its way; else 0."""
    try:
        request_id = _parse_header(frames[0]).get("id")
    except (MalformedMessage, IndexError):
        return 0
    if isinstance(request_id, int) and not isinstance(request_id, bool):
        return request_id
    return 0


def _parse_header(frame: bytes) -> dict[str, Any]:
    if len(frame) > HEADER_LIMIT_BYTES:
        raise MalformedMessage(f"the header has {len(frame)} bytes, over {HEADER_LIMIT_BYTES}")
    try:
        header = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise MalformedMessage("the header is not a JSON object")
    return header


def _to_json(message: Message, binary: list[bytes]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for each in fields(message):  # type: ignore[arg-type]  # every Message is a dataclass
        value = getattr(message, each.name)
        if isinstance(value, bytes):
            binary.append(value)
        elif isinstance(value, tuple):
            body[each.name] = [_to_json(item, binary) for item in value]
        else:
            body[each.name] = value
    return body


def _from_json(kind: type[Message], body: object, binary: list[bytes]) -> Message:
    if not isinstance(body, dict):
        raise MalformedMessage(f"{kind.__name__} has no body")
    annotations = _annotations(kind)  # type: ignore[arg-type]  # a class is hashable
    # A field that a newer minor version added is skipped; a missing one falls to its default.
    values: dict[str, Any] = {}
    for name, annotation in annotations.items():
        if annotation is bytes:
            if not binary:
                raise MalformedMessage(f"{kind.__name__}.{name} has no frame")
            values[name] = binary.pop(0)
            if len(values[name]) > FRAME_LIMIT_BYTES:
                raise MalformedMessage(f"{kind.__name__}.{name} is over {FRAME_LIMIT_BYTES} bytes")
        elif name in body:
            values[name] = _checked(annotation, body[name], f"{kind.__name__}.{name}", binary)
    try:
        return kind(**values)
    except TypeError as error:
        raise MalformedMessage(f"{kind.__name__}: {error}") from error


@cache
def _annotations(kind: type[Message]) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _checked(annotation: Any, value: Any, where: str, binary: list[bytes]) -> Any:
    """`value` as `annotation` wants it, or `MalformedMessage`."""
    origin = typing.get_origin(annotation)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        (annotation,) = (one for one in typing.get_args(annotation) if one is not types.NoneType)
        return _checked(annotation, value, where, binary)
    if origin is Literal:
        valid = value in typing.get_args(annotation) and isinstance(value, str)
    elif origin is tuple:
        if isinstance(value, list):
            item = typing.get_args(annotation)[0]
            return tuple(_from_json(item, each, binary) for each in value)
        valid = False
    elif origin is list:
        valid = isinstance(value, list) and all(isinstance(each, str) for each in value)
    elif origin is dict:
        valid = isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    elif annotation is float:
        # Not finite is no time to wait for, and JSON's parser lets it through (NaN, 1e999).
        if isinstance(value, float) or _is_int(value):
            with contextlib.suppress(OverflowError):
                if math.isfinite(value):
                    return float(value)
        valid = False
    elif annotation is int:
        valid = _is_int(value)
    else:
        valid = isinstance(value, annotation)
    if not valid:
        raise MalformedMessage(f"{where} must be {annotation}, not {str(value)[:80]!r}")
    return value


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
