"""A script pays for what spawny imports: what that is, name by name.

A new name here is time that every script pays. Look at `benchmarks/run.py scripts`, and import it
where it is used.
"""

import subprocess
import sys
from pathlib import Path

import pytest

import spawny

REPOSITORY = Path(__file__).parents[1]

# Those of all versions of Python together; only what a bare interpreter has not imported counts.
OF_IMPORT = {
    *("spawny", "__future__"),
    *("importlib", "importlib._bootstrap", "importlib._bootstrap_external", "warnings"),
}

OF_ATTACH = {
    *OF_IMPORT,
    *("spawny.address", "spawny.errors"),
    *("spawny.kernel", "spawny.kernel.buffers", "spawny.kernel.sessions", "spawny.kernel.spin"),
    "spawny.kernel.wire",
    "_spawny_kernel_buffers",
    "spawny.client",
    *("spawny.client.launch", "spawny.client.session", "spawny.client.channel"),
    *("spawny.client.pool", "spawny.client.scope", "spawny.client.interrupt"),
    *("spawny.client.attachment", "spawny.client.succession", "spawny.client.background"),
    "spawny.client.log",
    *("spawny.client.proxy", "spawny.client.references", "spawny.client.remote_type"),
    *("spawny.client.arguments", "spawny.client.serialize", "spawny.client.streams"),
    *("spawny.client.results", "spawny.client.outcomes", "spawny.client.failures"),
    # Sockets, and what the standard library's module needs.
    *("socket", "_socket", "select", "selectors", "fcntl", "termios", "array", "errno", "math"),
    *("enum", "types", "operator", "_operator", "functools", "_functools", "itertools"),
    *("collections", "_collections", "collections.abc", "_collections_abc"),
    *("keyword", "reprlib"),
    # Pickles, and what that module needs.
    *("pickle", "_pickle", "_compat_pickle", "copyreg", "struct", "_struct"),
    *("re", "_sre", "re._casefix", "re._compiler", "re._constants", "re._parser"),
    # Threads, signals and ends.
    *("threading", "_weakrefset", "weakref", "contextlib", "contextvars", "_contextvars"),
    *("queue", "_queue", "heapq", "_heapq", "signal", "importlib.machinery"),
}


def imported(program: str) -> set[str]:
    """What a program has imported at its end."""
    run = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.splitlines()[-1].split())  # a start tells of itself before


def check(program: str, allowed: set[str]) -> None:
    found = imported(program) - imported("pass")
    assert "spawny" in found
    new = sorted(found - allowed)
    assert not new, f"every script that does this imports {', '.join(new)} now: {program}"


def test_import_spawny_imports_next_to_nothing() -> None:
    """The public names are resolved on use: not even a socket is imported before."""
    check("import spawny", OF_IMPORT)


@pytest.mark.usefixtures("home")
def test_attaching_and_calling_import_what_a_socket_needs() -> None:
    """A warm script loads neither zmq nor subprocess, nor anything else that a start needs."""
    module = spawny.run_script("def answer():\n    return 42", name="served")
    check("import spawny; assert spawny.attach('served').answer() == 42", OF_ATTACH)
    module.terminate_daemon()


@pytest.mark.usefixtures("home")
def test_starting_imports_no_asyncio() -> None:
    """pyzmq brings it, and ssl with it, where its monitor is read by its own function; and a script
    that is a text is nothing for cloudpickle."""
    spawny.connect()  # there is a supervisor
    program = "import spawny; assert spawny.run_script('def answer(): return 42').answer() == 42"
    found = imported(program)
    assert "zmq" in found
    assert not found & {"asyncio", "ssl", "cloudpickle", "psutil"}


def test_a_version_is_understood_without_looking_for_one() -> None:
    """A script that attaches by a version loads nothing of what finds interpreters."""
    found = imported("import spawny.interpreters.spec")
    ours = {each for each in found if each.startswith("spawny")}
    assert ours == {"spawny", "spawny.interpreters", "spawny.interpreters.spec"}
    assert "subprocess" not in found
