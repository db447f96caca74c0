"""Building an environment: by uv where it is there, otherwise by venv and pip.

One rule: a build leaves a whole environment or none, and no process. The tools run in a process
group of their own, which ends with the build. One whose client was killed goes on for a while; it
holds the lock meanwhile, so that nobody builds in the same place.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sysconfig
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import EnvironmentFailed
from .bases import Base
from .indexes import masked
from .progress import Progress
from .requirements import Requirements
from .store import Built, Environment

# The end of what a tool wrote, for an error: pip says in the last ten lines what is wrong, and uv's
# explanations of what excludes what are longer.
TAIL_LINES = 30

# For a tool to remove its temporary files after SIGINT.
END_SECONDS = 3.0

# The pip that came with a Python may be too old to know the wheels of today: 20.3 has
# manylinux2014 and manylinux_2_x, and the resolver. 22 is no longer for Python 3.6, which an old
# pip may fail to see; it is only 3.6 that comes with one so old.
_OLD_PIP = (20, 3)
_NEW_PIP = "pip>=20.3,<22"

# What tells from an error's text that no index was reached.
_OFFLINE = re.compile(
    r"NewConnectionError|name resolution|Name or service not known|dns error|ConnectTimeout"
    r"|tcp connect error|Network is unreachable|Connection refused|client error \(Connect\)"
    r"|nodename nor servname",
    re.IGNORECASE,
)

# The tools' talk of what goes without saying.
_QUIET = (
    "Looking in ",
    "Using Python ",
    "Requirement already satisfied",
    "[notice]",
    "WARNING: You are using pip",
)


@dataclass(frozen=True, slots=True)
class Tools:
    """What builds: the environment's variables, uv's path where it is there, who is told, and a
    descriptor that the tools keep open while they run."""

    environ: Mapping[str, str]
    uv: str | None
    progress: Progress
    lock_fd: int


def find_uv(environ: Mapping[str, str]) -> str | None:
    """The uv of the extra `spawny[envs]`, which is beside our own commands; else that on PATH."""
    # Not by `import uv`: that may be a module of the user's.
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
    ours = os.pathsep.join(sysconfig.get_path("scripts", each) for each in schemes)
    return shutil.which("uv", path=ours) or shutil.which("uv", path=environ.get("PATH"))


def build(environment: Environment, wanted: Requirements, base: Base, tools: Tools) -> None:
    """Build it, in the place of whatever is there.

    Raises `EnvironmentFailed` with the tool's last lines. The lock is the caller's.
    """
    begin = time.time()
    try:
        environment.remove()
        environment.path.mkdir(mode=0o700)
        arguments = _write(environment.path, wanted)
        tool = _install(environment, wanted, arguments, base, tools)
        environment.mark(
            Built(
                requirements=tuple(wanted.shown()),
                base=base.executable,
                implementation=base.implementation,
                version=base.version_text,
                tool=tool,
                built_at=begin,
                build_seconds=round(time.time() - begin, 3),
                packages=packages_in(environment.path),
            )
        )
    except BaseException as error:
        with suppress(OSError):
            environment.remove()
        if isinstance(error, OSError):
            reason = f"{error.strerror}: {error.filename}" if error.filename else str(error)
            raise EnvironmentFailed(_headline(wanted, base, reason)) from error
        raise


def packages_in(path: Path) -> tuple[str, ...]:
    """What is installed there, by what installers write beside it."""
    found = set()
    for info in path.glob("lib/*/site-packages/*-info"):
        name, _, version = info.stem.partition("-")
        found.add(f"{name}=={version.partition('-')[0]}" if version else name)
    return tuple(sorted(found, key=str.lower))


def _write(path: Path, wanted: Requirements) -> list[str]:
    """The requirements as files, which show later what it was made of; the tools' arguments."""
    file = path / "requirements.txt"
    file.write_text("".join(f"{line}\n" for line in wanted.lines), encoding="utf-8")
    arguments = ["-r", str(file)]
    if wanted.constraints:
        constraints = path / "constraints.txt"
        constraints.write_text("".join(f"{line}\n" for line in wanted.constraints))
        arguments += ["-c", str(constraints)]
    return arguments


def _install(
    environment: Environment, wanted: Requirements, arguments: list[str], base: Base, tools: Tools
) -> str:
    """Fill it; the name of the tool that did."""
    python = str(environment.python)
    path = str(environment.path)
    if tools.uv:
        make = [tools.uv, "venv", "-q", "--no-project", "--allow-existing"]
        make += ["--python", base.executable]
        made = _run([*make, path], path, tools)
        if made.code == 0:
            if wanted.lines:
                install = [tools.uv, "pip", "install", "--python", python, *arguments]
                _check(_run(install, path, tools), wanted, base)
            return "uv"
        tools.progress.say(f"uv makes no environment of Python {base.label}; trying venv and pip")
    _make_venv(path, wanted, base, tools)
    if wanted.lines:
        _renew_pip(environment, tools)
        install = [python, "-I", "-m", "pip", "install", "--progress-bar", "off", *arguments]
        _check(_run(install, path, tools), wanted, base)
    return "pip"


def _make_venv(path: str, wanted: Requirements, base: Base, tools: Tools) -> None:
    """By venv; by virtualenv where the distribution has taken venv apart."""
    tools.progress.detail("python -m venv")
    made = _run([base.executable, "-I", "-m", "venv", path], path, tools)
    if made.code == 0:
        return
    virtualenv = shutil.which("virtualenv", path=tools.environ.get("PATH"))
    commands = [[base.executable, "-I", "-m", "virtualenv", path]]
    if virtualenv:
        commands.append([virtualenv, "--python", base.executable, path])
    if any(_run(command, path, tools).code == 0 for command in commands):
        return
    raise EnvironmentFailed(
        _headline(
            wanted,
            base,
            f"{base.executable} cannot make virtual environments: install what it lacks"
            " (Debian, Ubuntu: the package python3-venv), or virtualenv, or uv",
        ),
        output=made.tail,
    )


def _renew_pip(environment: Environment, tools: Tools) -> None:
    """Have a pip that knows the wheels of today; where there is none, the old one has to do."""
    version = next((each[5:] for each in packages_in(environment.path) if each[:5] == "pip=="), "0")
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < _OLD_PIP:
        python = str(environment.python)
        pip = [python, "-I", "-m", "pip", "install", "--progress-bar", "off", "-U"]
        _run([*pip, _NEW_PIP], str(environment.path), tools)


@dataclass(frozen=True, slots=True)
class _Ended:
    command: list[str]
    code: int
    tail: str


def _run(command: list[str], path: str, tools: Tools) -> _Ended:
    """Run a tool to its end, showing what it writes; nothing of it is left, however this ends."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,  # nobody is there to be asked for a password
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=path,  # neither a project nor a module that lies about is to be met
        env=dict(tools.environ),
        start_new_session=True,  # Ctrl-C is for us: we end it
        pass_fds=(tools.lock_fd,),
    )
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    try:
        assert child.stdout is not None
        for raw in child.stdout:
            line = masked(raw.decode(errors="replace").rstrip())
            if line.strip() and not line.lstrip().startswith(_QUIET):
                tail.append(line)
                tools.progress.detail(line.strip())
        child.wait()
    finally:
        _end(child)
    return _Ended(command, child.returncode, "\n".join(tail))


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the group of a tool that has not ended: first so that it can remove what it has made."""
    assert child.stdout is not None
    try:
        if child.returncode is None:
            _signal_group(child, signal.SIGINT)
            _wait_for_end(child.stdout.fileno())
    finally:
        if child.returncode is None:
            # Not waited for before: until then its number is its own.
            _signal_group(child, signal.SIGKILL)
            child.wait()
        child.stdout.close()


def _signal_group(child: subprocess.Popen[bytes], signal_number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal_number)


def _wait_for_end(output: int) -> None:
    """Wait until nobody in the group holds the pipe any more, or their time is over."""
    poll = select.poll()
    poll.register(output, select.POLLIN)
    deadline = time.monotonic() + END_SECONDS
    while (left := deadline - time.monotonic()) > 0 and poll.poll(left * 1000):
        if not os.read(output, 1 << 16):
            return


def _check(ended: _Ended, wanted: Requirements, base: Base) -> None:
    if ended.code == 0:
        return
    tool = os.path.basename(ended.command[0])
    reason = f"{tool if tool == 'uv' else 'pip'} failed with exit code {ended.code}"
    if ended.code < 0:
        with suppress(ValueError):
            reason = f"{tool} was killed by {signal.Signals(-ended.code).name}"
    elif _OFFLINE.search(ended.tail):
        reason += ", since no package index can be reached: this machine may be offline"
    raise EnvironmentFailed(_headline(wanted, base, reason), output=ended.tail)


def _headline(wanted: Requirements, base: Base, reason: str) -> str:
    return f"no environment of Python {base.label} with {wanted.summary()}: {reason}"
