"""What the configuration changes: figures, and daemons that it declares.

One rule: a declared daemon is started by its declaration at the supervisor's start, by a reload
that adds or changes it, or when somebody looks for it by its name; once it runs it is like any
other.
"""

from __future__ import annotations

from dataclasses import fields

from .. import control
from ..settings import shown
from . import actions, endings, limits, starts, warmth
from .events import Configured, Declared, DeclaredDue, ReloadRequested
from .fleet import Fleet
from .records import Waiter
from .values import Caller


def on_configured(fleet: Fleet, event: Configured, now: float) -> None:
    """The supervisor has started; what runs has been taken up by now."""
    fleet.declared = dict(event.declared)
    for name, declared in event.declared.items():
        if declared.autostart and event.is_first and name not in fleet.records:
            _start(fleet, declared, now)


def on_reload(fleet: Fleet, event: ReloadRequested, now: float) -> None:
    """Tell what changes, and have it so."""
    if event.problem:
        if event.caller is not None:
            fleet.refuse(event.caller, "InvalidRequest", event.problem)
        fleet.announce("reloaded", f"nothing: {event.problem}")
        return
    changes = _figures_changed(fleet, event) + _daemons_changed(fleet, event)
    if event.caller is not None:
        fleet.reply(event.caller, control.Reloaded(changes))
    if not event.dry_run:
        _apply(fleet, event, now)
        fleet.announce("reloaded", "; ".join(changes) or "nothing has changed")


def on_due(fleet: Fleet, event: DeclaredDue, now: float) -> None:
    """The process before has ended, to make room for what is declared now."""
    declared = fleet.declared.get(event.name)
    if declared is not None and event.name not in fleet.records and not fleet.shutting_down:
        _start(fleet, declared, now)


def find(fleet: Fleet, caller: Caller, name: str, now: float) -> bool:
    """Whether somebody who looks for a daemon that does not run gets a declared one."""
    declared = fleet.declared.get(name)
    if declared is None or fleet.shutting_down:
        return False
    if declared.interpreter is None:
        fleet.refuse(caller, "InterpreterNotFound", declared.problem)
    else:
        _start(fleet, declared, now, (Waiter(caller, existing=False),))
    return True


def _start(fleet: Fleet, declared: Declared, now: float, waiters: tuple[Waiter, ...] = ()) -> None:
    name = declared.request.name
    if declared.interpreter is None:
        fleet.announce("failed", f"daemon {name!r} of the configuration: {declared.problem}")
        return
    fresh = starts.begin(fleet, declared.request, declared.interpreter, now)
    starts.launch(fleet, fresh, now, waiters=waiters)
    if not waiters:
        # Nobody is told that it did not come up: the restart policy decides, as after a death.
        fleet.put(fleet.records[name].lived(is_automatic=True))


def _figures_changed(fleet: Fleet, event: ReloadRequested) -> list[str]:
    old, new = fleet.settings, event.settings
    pairs = ((each.name, getattr(old, each.name), getattr(new, each.name)) for each in fields(old))
    return [
        f"{shown(name)}: {before} -> {after}" for name, before, after in pairs if before != after
    ]


def _daemons_changed(fleet: Fleet, event: ReloadRequested) -> list[str]:
    old, new = fleet.declared, event.declared
    changes = []
    for name in sorted({*old, *new}):
        if name not in old:
            then = "starts" if _is_to_start(fleet, new[name]) else "starts when it is attached to"
            changes.append(f"[daemons.{name}] added: {then}")
        elif name not in new:
            then = "stops" if _runs(fleet, old[name]) else "does not run"
            changes.append(f"[daemons.{name}] removed: {then}")
        elif keys := _keys_changed(old[name], new[name]):
            then = "restarts" if _runs(fleet, old[name]) else "does not run"
            if not _runs(fleet, old[name]) and _is_to_start(fleet, new[name]):
                then = "starts"
            changes.append(f"[daemons.{name}] changed ({', '.join(keys)}): {then}")
    return changes


def _keys_changed(old: Declared, new: Declared) -> list[str]:
    names = {*old.keys, *new.keys}
    keys = sorted(key for key in names if old.keys.get(key) != new.keys.get(key))
    if not keys and old.request.digest != new.request.digest:
        return ["the text of its script"]
    return keys


def _runs(fleet: Fleet, declared: Declared) -> bool:
    """Whether that very definition runs, and not another one that a client started by its name."""
    record = fleet.records.get(declared.request.name)
    return record is not None and record.request.digest == declared.request.digest


def _is_to_start(fleet: Fleet, declared: Declared) -> bool:
    return declared.autostart and declared.request.name not in fleet.records


def _apply(fleet: Fleet, event: ReloadRequested, now: float) -> None:
    fleet.settings = event.settings
    fleet.do(actions.UseSettings(event.settings))
    warmth.apply_settings(fleet)
    old, fleet.declared = fleet.declared, dict(event.declared)
    for name in sorted({*old, *fleet.declared}):
        before, after = old.get(name), fleet.declared.get(name)
        if before is not None and after is None and _runs(fleet, before):
            endings.stop(fleet, name, now, "removed from the configuration")
        elif after is not None and (before is None or _keys_changed(before, after)):
            if before is not None and _runs(fleet, before):
                record = fleet.records[name]
                record = fleet.put(record.changed(deferred=(*record.deferred, DeclaredDue(name))))
                if after.request.digest == record.request.digest:
                    limits.make_room(fleet, record, now, "changed in the configuration")
                else:
                    endings.stop(fleet, name, now, "changed in the configuration")
            elif _is_to_start(fleet, after):
                _start(fleet, after, now)
