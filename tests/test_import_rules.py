"""Imports point one way: kernel <- root modules <- interpreters <- client, supervisor <- cli."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.interpreters import Interpreter

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "spawny"
PARTS = {"kernel", "interpreters", "environments", "client", "supervisor", "cli"}


# What a version is, which the configuration has to know, too: it imports nothing of ours.
PURE = "spawny.interpreters.spec"


@dataclass(frozen=True)
class Import:
    """One imported module, as an absolute name, and where the statement stands."""

    file: str
    line: int
    target: str
    is_relative: bool
    # In a function or under TYPE_CHECKING: not run when the module is imported.
    is_deferred: bool

    def __str__(self) -> str:
        return f"spawny/{self.file}:{self.line} imports {self.target}"

    @property
    def top(self) -> str:
        return self.target.partition(".")[0]

    @property
    def part(self) -> str | None:
        """Which part of spawny it reaches: a folder, `root`, or None outside spawny."""
        if self.top != "spawny":
            return None
        first = self.target.removeprefix("spawny").lstrip(".").partition(".")[0]
        return first if first in PARTS else "root"


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    path = REPOSITORY.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def imports_of(path: Path) -> list[Import]:
    file = path.relative_to(PACKAGE).as_posix()
    package = module_name(path) if path.name == "__init__.py" else module_name(path.parent)
    return [
        Import(file, node.lineno, target, relative, deferred)
        for node, deferred in statements(ast.parse(path.read_bytes()), deferred=False)
        for target, relative in targets(node, package)
    ]


def statements(node: ast.AST, *, deferred: bool) -> Iterator[tuple[ast.stmt, bool]]:
    """Every import statement under a node, and whether importing the module skips it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, deferred
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            later = True
        yield from statements(child, deferred=deferred or later)


def targets(node: ast.stmt, package: str) -> Iterator[tuple[str, bool]]:
    """The absolute names that one statement imports; a submodule where it names one."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, False) for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parents = package.split(".")
            above = parents[: len(parents) - node.level + 1]
            base = ".".join([*above, base]).rstrip(".")
        for alias in node.names:
            name = f"{base}.{alias.name}"
            yield (name if is_module(name) else base), node.level > 0


@cache
def all_imports(part: str) -> list[Import]:
    """Every import statement of one part; `root` is the modules directly in spawny/."""
    folder = PACKAGE.glob("*.py") if part == "root" else (PACKAGE / part).rglob("*.py")
    files = sorted(folder)
    assert files, f"spawny has no {part}"
    return [each for path in files for each in imports_of(path)]


def test_the_kernel_imports_the_stdlib_and_itself() -> None:
    """A daemon's interpreter has nothing of ours, and loads the kernel under another name."""
    wrong = [
        each
        for each in all_imports("kernel")
        if (each.part != "kernel" if each.is_relative else each.top not in sys.stdlib_module_names)
    ]
    assert not wrong, report(wrong)


def test_root_modules_import_the_stdlib_and_each_other() -> None:
    """Everybody imports them, so they may need nobody; the public names resolve on use."""
    wrong = [
        each
        for each in all_imports("root")
        if each.part != "root"
        and each.top not in sys.stdlib_module_names
        and each.target != PURE
        and not (each.file == "__init__.py" and each.is_deferred)
    ]
    assert not wrong, report(wrong)


@pytest.mark.parametrize("module", ["spec", "prober"])
def test_some_of_the_interpreters_need_nothing_of_ours(module: str) -> None:
    """The configuration has to know what a version is; what executes others is a program."""
    wrong = [each for each in imports_of(PACKAGE / "interpreters" / f"{module}.py") if each.part]
    assert not wrong, report(wrong)


def test_root_modules_have_no_cycles() -> None:
    """They have an order in which each can be understood by what came before."""
    edges: dict[str, set[str]] = {}
    for each in all_imports("root"):
        importer = module_name(PACKAGE / each.file)
        deferred_init = importer == "spawny" and each.is_deferred
        if each.part == "root" and not deferred_init:
            edges.setdefault(importer, set()).add(each.target)
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    ("part", "allowed"),
    [
        ("interpreters", {"interpreters", "root"}),
        ("environments", {"environments", "interpreters", "root"}),
        ("client", {"client", "environments", "interpreters", "root", "kernel"}),
        ("supervisor", {"supervisor", "environments", "interpreters", "root", "kernel"}),
        ("cli", {"cli", "client", "environments", "interpreters", "root"}),
    ],
)
def test_parts_import_only_what_is_below_them(part: str, allowed: set[str]) -> None:
    """Client and supervisor know the kernel and the root, never each other; cli is a client."""
    wrong = [each for each in all_imports(part) if each.part and each.part not in allowed]
    assert not wrong, report(wrong)


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("zmq", {"client/conversation.py", "supervisor/sockets.py"}),
        ("psutil", {"supervisor/health.py", "supervisor/proctable.py"}),
    ],
)
def test_libraries_stay_in_their_files(library: str, homes: set[str]) -> None:
    """A library that shapes code is met in two files, and could be replaced there."""
    users = [each for part in (*PARTS, "root") for each in all_imports(part) if each.top == library]
    assert users, f"nobody imports {library}: does spawny still need it?"
    assert not (wrong := [each for each in users if each.file not in homes]), report(wrong)


@pytest.mark.parametrize("module", ["core.py", "lifecycle.py", "policy.py"])
def test_decisions_touch_no_world(module: str) -> None:
    """What decides takes values and returns values: it has no clock, socket or process."""
    world = {"socket", "subprocess", "asyncio", "time", "os", "select", "selectors", "threading"}
    wrong = [each for each in imports_of(PACKAGE / "supervisor" / module) if each.top in world]
    assert not wrong, report(wrong)


def test_the_supervisor_never_unpickles() -> None:
    """What users send passes through it as bytes: it cannot even try to load them."""
    loaders = {"pickle", "_pickle", "cloudpickle", "marshal", "shelve"}
    wrong = [each for each in all_imports("supervisor") if each.top in loaders]
    assert not wrong, report(wrong)


COMPILE = """
import sys
for path in sys.argv[1:]:
    with open(path, "rb") as source:
        compile(source.read(), path, "exec")
"""


def test_the_kernel_compiles(interpreter: Interpreter) -> None:
    """Every interpreter that may run a daemon can read every kernel file, without a warning."""
    files = sorted(map(str, (PACKAGE / "kernel").rglob("*.py")))
    assert files
    compiled = subprocess.run(
        [interpreter.path, "-S", "-E", "-W", "error", "-c", COMPILE, *files],
        capture_output=True,
        text=True,
    )
    assert compiled.returncode == 0, compiled.stderr


@pytest.mark.parametrize("path", sorted((PACKAGE / "kernel").rglob("*.py")), ids=lambda p: p.name)
def test_the_kernel_keeps_to_the_syntax_of_3_6(path: Path) -> None:
    """Newer syntax is found here too when no old interpreter is at hand."""
    tree = ast.parse(path.read_bytes(), feature_version=(3, 6))
    future = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
        for alias in node.names
    ]
    assert "annotations" not in future, "3.6 does not know this future"


def report(imports: list[Import]) -> str:
    return "; ".join(map(str, imports))


@pytest.mark.parametrize(
    ("part", "where"),
    [("root", {"children.py"}), ("interpreters", {"prober.py"}), ("supervisor", set())],
)
def test_processes_are_started_in_one_place(part: str, where: set[str]) -> None:
    """Or the supervisor would reap them as orphans, from under whoever waits for them; the prober
    is a process of its own."""
    folder = PACKAGE.glob("*.py") if part == "root" else (PACKAGE / part).rglob("*.py")
    starting = {
        path.name
        for path in folder
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("subprocess.")
    }
    assert starting == where
