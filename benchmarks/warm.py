"""How soon a new process answers: executed, forked from a zygote, and by other ways."""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import original
from harness import (
    Figure,
    Section,
    interleave,
    private_home,
    python,
    run_milliseconds,
)

import spawny

# From run_script to the first answer, in a client that is warm as well.
NUMPY_GOAL_MILLISECONDS = 10.0
DAEMONS_PER_SECOND_GOAL = 200.0
PSS_GOAL_MIB = 4.0

SCRIPT = "def answer():\n    return 42"

COMMAND, FORKED = "python -c", "spawny, forked"
# What is imported before the first answer.
NOTHING = "nothing imported"

METHOD = (
    "From the request to the first answer: of daemons, in a client that runs, executed or forked"
    " from a zygote that is warm; of `python -c`, from start to end. Columns are what is imported"
    " before, in the zygote or in the process. Medians of {rounds} rounds. Daemons a second have"
    " their files in memory, as sockets and journal are wherever there is a /run/user; and, beside"
    " it, where temporary files are: to make a file ext4 looks at each inode that was freed in the"
    " last minutes, and those of the daemons before are such."
)

# In a row, by so many threads of one client.
CROWD = 200
THREADS = 4

IN_MEMORY = "/dev/shm"

PATIENCE_SECONDS = 60.0


def measure(rounds: int) -> Section:
    """Milliseconds until a new process answers, daemons a second, and memory of an idle one."""
    with ExitStack() as stack:
        ways: dict[tuple[str, str], Callable[[], float]] = {}
        cold = stack.enter_context(_home("[zygotes]\nenabled = false\n"))
        warm = stack.enter_context(_home(""))
        for preload in (NOTHING, *_installed("numpy", "pandas")):
            modules = () if preload == NOTHING else (preload,)
            command = python("-c", f"import {preload}" if modules else "pass")
            ways[COMMAND, preload] = lambda c=command: run_milliseconds(c)
            ways["spawny, executed", preload] = lambda m=modules: _start(cold, *m)
            ways[FORKED, preload] = lambda m=modules: _start(warm, *m)
        for way, label, preload in (
            ("forkserver", "multiprocessing, forkserver", "numpy"),
            ("loky", "loky, a worker", NOTHING),
            ("original", original.TITLE, NOTHING),
        ):
            starter = stack.enter_context(_starter(way))
            if starter is not None:
                ways[label, preload] = starter
        for way in ways.values():
            for _ in range(3):  # zygotes are started, files cached
                way()
        times = interleave(ways, rounds)
        with _using(warm):
            on_disk = max(_daemons_a_second() for _ in range(3))
            memory = _idle_mebibytes()
        home = stack.enter_context(_home("", IN_MEMORY))
        for _ in range(3):
            _start(home, "json")
        with _using(home):
            in_memory = max(_daemons_a_second() for _ in range(3))
    figures = [
        Figure(
            way,
            statistics.median(times[way, preload]),
            "ms",
            limit=NUMPY_GOAL_MILLISECONDS if (way, preload) == (FORKED, "numpy") else None,
            column=preload,
        )
        for way, preload in times
    ]
    return Section(
        "New processes",
        METHOD.format(rounds=rounds),
        (
            *figures,
            Figure(
                f"new daemons a second from one zygote, {THREADS} at a time",
                in_memory,
                "/s",
                least=DAEMONS_PER_SECOND_GOAL,
                note=f"the best of three times {CROWD}; files in memory",
            ),
            Figure(
                "the same, files where temporary files are",
                on_disk,
                "/s",
                note=f"the best of three times {CROWD}",
            ),
            Figure(
                "PSS of an idle forked daemon, beside nine others",
                memory,
                "MiB",
                limit=PSS_GOAL_MIB,
            ),
        ),
    )


def _installed(*modules: str) -> Iterator[str]:
    return (each for each in modules if importlib.util.find_spec(each) is not None)


@contextmanager
def _home(config: str, base: str | None = None) -> Iterator[Path]:
    """A home with this configuration, in `base` perhaps, and a supervisor that runs."""
    with private_home(base) as home:
        (home / "config").mkdir()
        (home / "config" / "config.toml").write_text(config)
        spawny.connect()
        yield home


@contextmanager
def _using(home: Path) -> Iterator[None]:
    before = os.environ.get("SPAWNY_HOME")
    os.environ["SPAWNY_HOME"] = str(home)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SPAWNY_HOME"]
        else:
            os.environ["SPAWNY_HOME"] = before


def _start(home: Path, *preload: str) -> float:
    with _using(home):
        began = time.perf_counter()
        module = spawny.run_script(SCRIPT, preload=preload)
        module.answer()
        took = (time.perf_counter() - began) * 1000
        module.terminate_daemon()
    return took


def _daemons_a_second() -> float:
    """One after the other in each thread, until they answer; they end together."""
    left = iter(range(CROWD))
    proxies = []

    def work() -> None:
        for _ in left:
            proxies.append(spawny.run_script(SCRIPT, preload=["json"]))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    began = time.perf_counter()
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    took = time.perf_counter() - began
    for proxy in proxies:
        proxy.terminate_daemon()
    return len(proxies) / took


def _idle_mebibytes() -> float:
    proxies = [
        spawny.run_script("import os\ndef pid():\n    return os.getpid()", preload=["json"])
        for _ in range(10)
    ]
    pids = [spawny.value(each.pid()) for each in proxies]
    time.sleep(1)
    found = []
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        found += [int(each.split()[1]) / 1024 for each in lines if each.startswith("Pss:")]
    for proxy in proxies:
        proxy.terminate_daemon()
    return statistics.median(found)


@contextmanager
def _starter(way: str) -> Iterator[Callable[[], float] | None]:
    """Start a process by another way (see starters.py); None where it is not to be had."""
    with ExitStack() as stack:
        environ: dict[str, str] | None = {**os.environ}
        if way == "original":
            environ = stack.enter_context(original.environment())
        if environ is None or (way == "loky" and not importlib.util.find_spec("loky")):
            yield None
            return
        process = stack.enter_context(
            subprocess.Popen(
                python(str(Path(__file__).with_name("starters.py")), way),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environ,
                text=True,
            )
        )

        def start() -> float:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        yield start
        with suppress(OSError):
            process.communicate(timeout=PATIENCE_SECONDS)
