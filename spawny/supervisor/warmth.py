"""Which zygotes there are: when one is started, what is forked from it, and when it goes.

One rule: a zygote only makes starts faster. Wherever anything speaks against one (its modules
cannot be forked, memory is short, a daemon of it has crashed) daemons are started plainly.
"""

from __future__ import annotations

from .. import control
from . import actions
from .events import ProcessExited, ZygoteGone, ZygoteReady
from .fleet import Fleet
from .lifecycle import State
from .records import Kind, Record, Stage, Unfit, Zygote
from .values import Caller, Interpreter

# Two starts of one kind within this time, and the next is made from a zygote; where modules are to
# be preloaded the first is.
OFTEN_SECONDS = 300.0

# A preload that raised may be mended, and a zygote that was killed may have been so by accident.
FAILED_SECONDS = 30.0

# A daemon that crashes so soon may do so since it was forked.
YOUNG_SECONDS = 10.0
_CRASHES = frozenset({"SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS"})

# Of so many kinds it is remembered that they cannot be forked, or were started lately.
KINDS_KEPT = 100

# These tell one terminal, session or shell from another. A daemon gets its own in any case; modules
# that are preloaded see those of the daemon that the zygote was started for.
SESSION_VARIABLES = frozenset(
    {"COLORTERM", "COLUMNS", "DBUS_SESSION_BUS_ADDRESS", "INVOCATION_ID", "JOURNAL_STREAM", "LINES"}
    | {"OLDPWD", "PWD", "PYTEST_CURRENT_TEST", "SHLVL", "SPAWNY_DAEMON", "STY", "SYSTEMD_EXEC_PID"}
    | {"TERM", "VTE_VERSION", "WINDOW", "WINDOWID", "_"}
)
SESSION_PREFIXES = (
    *("GNOME_TERMINAL_", "ITERM_", "KITTY_", "KONSOLE_", "SSH_", "TERM_", "TMUX", "VSCODE_"),
    *("WEZTERM_", "WT_", "XDG_SEAT", "XDG_SESSION_", "XDG_VTNR"),
)


def kind_of(request: control.StartDaemon, interpreter: Interpreter) -> Kind:
    """What daemons have in common that one zygote can fork."""
    environ = tuple(
        (name, value)
        for name, value in sorted(request.environ.items())
        if name not in SESSION_VARIABLES and not name.startswith(SESSION_PREFIXES)
    )
    # The interpreter makes it absolute when it starts.
    path = request.environ.get("PYTHONPATH", "")
    is_relative = bool(path) and not all(each.startswith("/") for each in path.split(":"))
    return Kind(
        interpreter,
        request.caller_python,
        request.kernel,
        tuple(request.preload),
        tuple(request.sys_path) if request.preload else (),
        environ,
        request.cwd if is_relative else "/",
    )


# --- starting daemons -----------------------------------------------------------------------------


def launch(fleet: Fleet, record: Record, free_bytes: int | None, now: float) -> None:
    """Start the process of a record: forked where that is possible."""
    kind = kind_of(record.request, record.interpreter)
    zygote = _find(fleet, kind)
    is_allowed = _is_allowed(fleet, kind, free_bytes, now)
    if zygote is None and is_allowed and kind.preload:
        zygote = _start(fleet, kind, record, now)
    if zygote is not None and (zygote.ready_at is not None or kind.preload):
        fleet.zygotes[zygote.number] = zygote.changed(used_at=now)
        fleet.put(record.lived(zygote=zygote.number))
        fleet.do(actions.ForkDaemon(zygote.number, record.request, record.interpreter))
        return
    fleet.do(actions.SpawnChild(record.request, record.interpreter))
    if zygote is None and is_allowed and _is_often(fleet, kind, now):
        _start(fleet, kind, record, now)


def _find(fleet: Fleet, kind: Kind) -> Zygote | None:
    return next((each for each in fleet.zygotes.values() if each.kind == kind), None)


def _is_allowed(fleet: Fleet, kind: Kind, free_bytes: int | None, now: float) -> bool:
    """Whether a zygote of this kind may be started."""
    settings, unfit = fleet.settings, fleet.unfit.get(kind)
    if not settings.zygotes_enabled or fleet.shutting_down or fleet.upgrading is not None:
        return False
    if unfit is not None and now < unfit.until:
        return False
    return free_bytes is None or free_bytes >= 2 * settings.memory_reserve_bytes


def _is_often(fleet: Fleet, kind: Kind, now: float) -> bool:
    before = fleet.plain_starts.pop(kind, None)
    fleet.plain_starts[kind] = now
    if len(fleet.plain_starts) > KINDS_KEPT:
        del fleet.plain_starts[next(iter(fleet.plain_starts))]
    return before is not None and now - before < OFTEN_SECONDS


def _start(fleet: Fleet, kind: Kind, record: Record, now: float) -> Zygote:
    while len(fleet.zygotes) >= fleet.settings.zygotes_most:
        end(fleet, _by_use(fleet)[0].number)
    fleet.zygote_number += 1
    zygote = Zygote(fleet.zygote_number, kind, began_at=now, used_at=now)
    fleet.zygotes[zygote.number] = zygote
    fleet.do(actions.StartZygote(zygote.number, record.request, record.interpreter, kind.cwd))
    return zygote


# --- what becomes of them -------------------------------------------------------------------------


def on_ready(fleet: Fleet, event: ZygoteReady, now: float) -> None:
    zygote = fleet.zygotes.get(event.number)
    if zygote is not None:
        fleet.zygotes[event.number] = zygote.changed(ready_at=now, pid=event.pid)


def on_gone(fleet: Fleet, event: ZygoteGone, now: float) -> None:
    zygote = fleet.zygotes.pop(event.number, None)
    if zygote is not None:  # else it was ended
        lasts = fleet.settings.zygotes_keep_seconds if event.is_unfit else FAILED_SECONDS
        _avoid(fleet, zygote.kind, event.reason, now + lasts)


def count_fork(fleet: Fleet, number: int) -> None:
    zygote = fleet.zygotes.get(number)
    if zygote is not None:
        fleet.zygotes[number] = zygote.changed(forks=zygote.forks + 1)


def on_exit(fleet: Fleet, record: Record, event: ProcessExited, now: float) -> None:
    """A daemon's process has ended; if that may be for being forked, the next one is not."""
    life = record.life
    is_young = now - life.began_at < YOUNG_SECONDS
    if is_young and life.stage is Stage.ASKED and event.signal_name in _CRASHES:
        blame(fleet, record, f"was killed by {event.signal_name}", now)


def blame(fleet: Fleet, record: Record, what: str, now: float) -> None:
    """Start the next daemon of this kind plainly, if this one was forked."""
    if record.life.zygote:
        kind = kind_of(record.request, record.interpreter)
        reason = f"daemon {record.name!r}, forked from it, {what}"
        _avoid(fleet, kind, reason, now + fleet.settings.zygotes_keep_seconds)
        end(fleet, record.life.zygote)


def _avoid(fleet: Fleet, kind: Kind, reason: str, until: float) -> None:
    fleet.unfit.pop(kind, None)
    fleet.unfit[kind] = Unfit(reason, until)
    if len(fleet.unfit) > KINDS_KEPT:
        del fleet.unfit[next(iter(fleet.unfit))]
    preload = f" with {', '.join(kind.preload)}" if kind.preload else ""
    what = f"daemons of {kind.interpreter.executable}{preload} are started plainly for a while"
    fleet.announce("zygote", f"{what}: {reason}")


# --- when they go ---------------------------------------------------------------------------------


def look(fleet: Fleet, now: float) -> None:
    """The regular look: end what nobody has used for long."""
    used = {each.life.zygote for each in fleet.alive()}
    for number, zygote in list(fleet.zygotes.items()):
        if number in used:
            fleet.zygotes[number] = zygote.changed(used_at=now)
        elif now - zygote.used_at >= fleet.settings.zygotes_keep_seconds:
            end(fleet, number)
    for kind, unfit in list(fleet.unfit.items()):
        if now >= unfit.until:
            del fleet.unfit[kind]


def apply_settings(fleet: Fleet) -> None:
    """They have changed."""
    if not fleet.settings.zygotes_enabled:
        end_all(fleet)
    for zygote in _by_use(fleet)[: -fleet.settings.zygotes_most]:
        end(fleet, zygote.number)


def _by_use(fleet: Fleet) -> list[Zygote]:
    """The longest unused first."""
    return sorted(fleet.zygotes.values(), key=lambda each: (each.used_at, each.number))


def end_all(fleet: Fleet) -> None:
    """End each; what is there for convenience goes first where memory is short."""
    for number in list(fleet.zygotes):
        end(fleet, number)


def end(fleet: Fleet, number: int) -> None:
    """End a zygote, if it is there; what it was asked for it still does."""
    if fleet.zygotes.pop(number, None) is not None:
        fleet.do(actions.EndZygote(number))


def is_forking(fleet: Fleet) -> bool:
    """Whether a daemon is being forked whose process is not known yet."""
    return any(
        each.life.zygote and each.identity is None and each.state is State.STARTING
        for each in fleet.records.values()
    )


# --- what is told of them -------------------------------------------------------------------------


def list_zygotes(fleet: Fleet, caller: Caller, now: float) -> None:
    """Answer with those there are, and the kinds that cannot be forked."""
    daemons = [each.life.zygote for each in fleet.alive()]
    found = {
        each.number: control.ZygoteStatus(
            each.kind.interpreter.executable,
            list(each.kind.preload),
            "starting" if each.ready_at is None else "ready",
            each.pid,
            age_seconds=now - each.began_at,
            idle_seconds=0.0 if each.number in daemons else now - each.used_at,
            forks=each.forks,
            daemons=daemons.count(each.number),
        )
        for each in fleet.zygotes.values()
    }
    unfit = tuple(
        control.ZygoteStatus(
            kind.interpreter.executable, list(kind.preload), "unfit", reason=each.reason
        )
        for kind, each in fleet.unfit.items()
        if now < each.until
    )
    fleet.do(actions.ListZygotes(caller, found, unfit))
