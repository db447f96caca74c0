"""What may be said about a daemon when it is started; the one place where it is documented."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from ..errors import InvalidRequest
from ..sizes import size_bytes

OnDrift = Literal["warn", "restart", "error"]


class Options(TypedDict, total=False):
    """What `run_script`, `run_module` and `run_object` take besides the definition."""

    name: str | None
    """A named daemon outlives this script, and others attach to it. Default: a generated name, and
    an end with the last proxy."""
    if_exists: Literal["attach", "replace", "error"]
    """What to do where a daemon of this name runs: attach if it has the same definition (else
    `DaemonExists`), replace it, or raise `DaemonExists`. Default: attach."""
    on_drift: OnDrift
    """What to do where the daemon that is found has drifted, see `attach`: warn, restart it, or
    raise `DaemonDrifted`. "restart" replaces one of another definition or interpreter, too.
    Default: warn."""
    idle_timeout: float | None
    """Seconds without any client until it ends, None for never. Default: 0 without a name, None
    with one."""
    env: Mapping[str, str | None]
    """Environment variables on top of the caller's; None takes one away."""
    cwd: str | os.PathLike[str]
    """Its working directory. Default: the caller's."""
    restart: Literal["never", "on-failure", "always"]
    """Start it anew when it dies. Default: never."""
    requirements: Sequence[str] | str | os.PathLike[str] | None
    """Packages that its interpreter has to have: a list of lines such as "numpy<2", or the path of
    a requirements file or a `pyproject.toml`, or "script" for the header of the script. It runs in
    an environment with these, built where there is none yet. Default: those of the interpreter."""
    preload: Sequence[str]
    """Names of modules that are imported there before the definition. Default: none."""
    start_timeout: float
    """Seconds for interpreter and definition to be ready. Default: 60."""
    max_rss: int | str | None
    """Resident memory, in bytes or as a text such as "2 GB" or "1.5 GiB", beyond which it is
    started anew between calls. Default: no limit."""
    max_calls: int | None
    """Requests, as `spawny ps` counts them, after which it is started anew. Default: no limit."""
    max_age: float | None
    """Seconds from when it is ready until it is started anew between calls. Default: no limit."""
    call_deadline: float | None
    """Seconds that one call may take: a longer one is interrupted and raises `CallTimeout`; where
    it does not heed that, the daemon is ended. Default: no limit."""
    output: Literal["forward", "log"]
    """Where prints go besides the log: forward to the clients, or nowhere. Default: forward."""


_CHOICES = {
    "if_exists": ("attach", "replace", "error"),
    "on_drift": ("warn", "restart", "error"),
    "restart": ("never", "on-failure", "always"),
    "output": ("forward", "log"),
}


def check_options(options: Mapping[str, Any]) -> None:
    """Raise `InvalidRequest` naming the option that makes no sense."""
    known = Options.__annotations__
    for key, value in options.items():
        if key not in known:
            raise InvalidRequest(f"there is no option {key!r}; there are {', '.join(known)}")
        if key in _CHOICES and value not in _CHOICES[key]:
            raise InvalidRequest(f"{key} is one of {', '.join(_CHOICES[key])}, not {value!r}")
    for key in ("idle_timeout", "start_timeout"):
        if key in options and not (key == "idle_timeout" and options[key] is None):
            _check_seconds(key, options[key])
    for key in ("max_age", "call_deadline"):
        if options.get(key) is not None:
            _check_seconds(key, options[key])
            if options[key] == 0:
                raise InvalidRequest(f"{key} is more than 0 seconds, or None")
    max_calls = options.get("max_calls")
    if max_calls is not None and not (type(max_calls) is int and 1 <= max_calls < 2**62):
        raise InvalidRequest(f"max_calls is a number from 1 on, or None, not {max_calls!r}")
    size_bytes(options.get("max_rss"))
    _check_preload(options.get("preload", ()))
    environ, cwd = options.get("env", {}), options.get("cwd", ".")
    if not isinstance(environ, Mapping):
        raise InvalidRequest(f"env is a mapping of names to texts, not {environ!r}")
    if not isinstance(os.fspath(cwd) if isinstance(cwd, os.PathLike) else cwd, str):
        raise InvalidRequest(f"cwd is a directory's path, not {cwd!r}")


def _check_preload(names: object) -> None:
    is_valid = isinstance(names, (tuple, list)) and all(
        isinstance(name, str) and all(map(str.isidentifier, name.split("."))) for name in names
    )
    if not is_valid:
        raise InvalidRequest(f"preload is a tuple of modules' names, not {names!r}")


def _check_seconds(key: str, value: object) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= sys.float_info.max:  # type: ignore[operator]
        raise InvalidRequest(f"{key} is a number of seconds, not {value!r}")
