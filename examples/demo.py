"""See spawny work, for real and in one go: `make demo`.

A model lives in another Python. One script starts it and ends; another comes later, knows only its
name, and finds it as it was left. Exits with 1 when anything is not as it should be, and leaves
nothing behind, also when interrupted.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pythons
from pythons import Python

EXAMPLES = Path(__file__).resolve().parent

# A unix socket's path has 107 bytes, and some temporary directories are deep.
FOLDER_LIMIT_BYTES = 60

# From the end of `spawny shutdown`, or from a SIGTERM, until a process is gone.
END_SECONDS = 10.0


class NotAsItShouldBe(Exception):
    """What the demo promised did not hold."""


def main() -> int:
    sys.stdout.reconfigure(errors="replace", line_buffering=True)  # type: ignore[union-attr]
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda number, frame: sys.exit(128 + number))
    began = time.monotonic()
    try:
        with private_folder() as folder:
            show(folder)
    except NotAsItShouldBe as failure:
        print(f"\n  ✗ {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\n  Interrupted; everything that ran has been ended.", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"\nAll as it should be, in {time.monotonic() - began:.0f} s.")
    return 0


def show(folder: Path) -> None:
    print("spawny: Python objects that outlive your script, in any interpreter")

    step("Another Python, with numpy in it and nothing of ours")
    venv = make_venv(folder / "venv")

    step("A first script starts a daemon there, and ends")
    listing("co2_model.py", first="years, ppm = load(DATA)")
    listing("first.py")
    output = run_script("first.py", str(venv))
    pid = int(found(r"pid (\d+)", output))
    check(psutil.pid_exists(pid), f"that script is gone, the daemon (pid {pid}) is still there")

    step("A second script, another process, attaches by name")
    listing("second.py")
    output = run_script("second.py")
    check(int(found(r"pid (\d+)", output)) == pid, f"the same process, pid {pid}")
    answered = found(r"answered (\d+)", output)
    check(answered == "2", "its state is as the first script left it: this was question 2")

    step("What runs")
    spawny_command("ps")
    daemons = json.loads(spawny_command("ps", "--json", is_shown=False))
    check(
        [(each["name"], each["pid"]) for each in daemons] == [("co2", pid)],
        "one daemon, and nobody attached to it" if not daemons[0]["clients"] else "one daemon",
    )
    check(
        daemons[0]["python"].startswith(str(venv)),
        f"in {os.path.relpath(daemons[0]['python'], folder)}; this is Python "
        f"{platform.python_version()}",
    )

    step("The end")
    spawny_command("stop", "co2")
    check(not psutil.pid_exists(pid), f"process {pid} is gone")
    spawny_command("shutdown")
    _, left = psutil.wait_procs(processes_of(folder), timeout=END_SECONDS)
    check(not any(map(lives, left)), "no process of this demo is left: all processes looked at")


def make_venv(venv: Path) -> Path:
    """The environment of the first Python that can have one."""
    candidates = pythons.find()
    print(f"  Found: {', '.join(map(str, candidates))}")
    for python in candidates:
        if python.minor == sys.version_info[:2]:
            print("  No other Python here that can have numpy, so it has to be this version again.")
        try:
            pythons.make_venv(python, venv)
        except subprocess.CalledProcessError as failure:
            print(f"  {python} will not do: {last_line(failure.stdout)}")
            continue
        prove_bare(python, venv)
        return venv
    raise NotAsItShouldBe("none of these could be given numpy: is the package registry reachable?")


def prove_bare(python: Python, venv: Path) -> None:
    packages = sorted(
        each.name.removesuffix(".dist-info").replace("-", " ")
        for each in pythons.site_packages(python, venv).glob("*.dist-info")
    )
    check(len(packages) == 1, f"a fresh venv of {python}; installed there: {', '.join(packages)}")
    tried = subprocess.run(
        [venv / "bin" / "python", "-I", "-c", "import spawny"], capture_output=True, text=True
    )
    check(
        "No module named 'spawny'" in tried.stderr,
        f"import spawny there: {last_line(tried.stderr)}",
    )


# --- telling and running --------------------------------------------------------------------------

_steps = iter(range(1, 100))


def step(title: str) -> None:
    print(f"\n{next(_steps)}. {title}\n")


def check(is_so: bool, fact: str) -> None:
    """Say the fact, or raise that it is none."""
    if not is_so:
        raise NotAsItShouldBe(f"not so: {fact}")
    print(f"  ✓ {fact}")


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise NotAsItShouldBe(f"no {pattern!r} in:\n{text}")
    return match[1]


def last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def listing(file: str, first: str = "import ") -> None:
    """A source file, from the first line that begins so."""
    lines = (EXAMPLES / file).read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(first))
    print(f"  --- {file}" + (", its last lines" if start > len(lines) / 2 else ""))
    for line in lines[start:]:
        print(f"  {line.partition('  # noqa')[0]}".rstrip())
    print()


def run_script(file: str, *arguments: str) -> str:
    """Run a script in a process of its own, shown as it goes; its output."""
    command = [sys.executable, str(EXAMPLES / file), *arguments]
    return run(command, " ".join(["python", file, *arguments]))


def spawny_command(*arguments: str, is_shown: bool = True) -> str:
    command = [sys.executable, "-m", "spawny.cli", *arguments]
    return run(command, " ".join(["spawny", *arguments]) if is_shown else None)


def run(command: list[str], shown: str | None) -> str:
    """Run a command to its end, which has to be a good one; its output."""
    if shown:
        print(f"  $ {shown}")
    began = time.monotonic()
    lines = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if shown:
                print(f"    {line.rstrip()}")
    if process.returncode != 0:
        told = "".join(lines)
        raise NotAsItShouldBe(f"{shown or command} ended with {process.returncode}:\n{told}")
    if shown and command[1].endswith(".py"):
        print(f"    (process {process.pid} has ended, after {time.monotonic() - began:.2f} s)")
    return "".join(lines)


# --- leaving nothing behind -----------------------------------------------------------------------


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for all that the demo makes, and a spawny of its own in it."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > FOLDER_LIMIT_BYTES:
        base = "/tmp"
    folder = Path(tempfile.mkdtemp(prefix="spawny-demo-", dir=base))
    os.environ["SPAWNY_HOME"] = str(folder)
    try:
        yield folder
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)  # a second Ctrl-C must not spoil this
        # A process that is being started is nobody's to stop but by force; so look again.
        while left := processes_of(folder):
            end(left)
        shutil.rmtree(folder, ignore_errors=True)


def end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(processes, timeout=END_SECONDS)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=END_SECONDS)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process but this one that was told of the folder, by its environment or arguments."""
    return [
        each for each in psutil.process_iter() if each.pid != os.getpid() and knows(each, folder)
    ]


def lives(process: psutil.Process) -> bool:
    """Not so where it has ended, and only nobody asks how, as in some containers."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def knows(process: psutil.Process, folder: Path) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        if process.environ().get("SPAWNY_HOME") == str(folder):
            return True
        return any(str(folder) in argument for argument in process.cmdline())
    except psutil.Error:
        return False  # ended meanwhile, or another user's


if __name__ == "__main__":
    sys.exit(main())
