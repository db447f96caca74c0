"""The source of a function, in a form that gives the very same function where it is compiled.

The one rule: what is sent was compiled here, in just that form, and what came of it compared with
the code that runs. So a file that was edited since it was imported is noticed, as is whatever
replaced the code (an assertion rewriter, a just-in-time compiler), and a lambda is told from its
neighbours on the line.

How a function is cut out of its file is said in `skeleton.py`.
"""

from __future__ import annotations

import ast
import dis
import functools
import linecache
import os
import sys
import weakref
from dataclasses import dataclass
from types import CodeType

from ..kernel.code import compile_source
from .skeleton import Function, Scope, cut_out, first_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

ANNOTATIONS = "annotations"
_CO_FUTURE_ANNOTATIONS = 0x1000000

# The parsed files of the functions that were sent last.
KEPT_FILES = 4


class NoSource(Exception):
    """The source of this function is not to be had, or not any more."""


@dataclass(frozen=True, eq=False)
class Source:
    """What `load_source` in the kernel takes, and the names that the function looks up globally."""

    filename: str
    first: int
    lines: tuple[str, ...]
    text: str
    shift: int
    path: tuple[str, ...]
    futures: tuple[str, ...]
    global_names: tuple[str, ...]

    def fields(self) -> tuple[Any, ...]:
        version = f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"
        return (
            *(self.filename, self.first, self.lines, self.text),
            *(self.shift, self.path, self.futures, version),
        )


# id of a code object -> itself and its source. Not by the code itself: those that are equal may
# stand in different files.
_known: dict[int, tuple[weakref.ref[CodeType], Source]] = {}


def source_of(code: CodeType, module_globals: dict[str, Any]) -> Source:
    """The source of a function's code; raises `NoSource`, saying why there is none."""
    number = id(code)
    known = _known.get(number)
    if known is not None and known[0]() is code:
        return known[1]
    source = _find(code, module_globals)
    _known[number] = weakref.ref(code, lambda _: _known.pop(number, None)), source
    return source


def _find(code: CodeType, module_globals: dict[str, Any]) -> Source:
    filename = code.co_filename
    lines = linecache.getlines(filename, module_globals)
    if not lines:
        raise NoSource("its source is not to be had (it was typed in, or made by exec)")
    source = _match(code, lines)
    if source is None:
        # What linecache has may be older than the code, too.
        linecache.checkcache(filename)
        again = linecache.getlines(filename, module_globals)
        source = None if again == lines else _match(code, again)
    if source is None:
        raise NoSource(f"{filename} does not say in line {code.co_firstlineno} what runs here")
    return source


def _match(code: CodeType, lines: list[str]) -> Source | None:
    try:
        index = _index("".join(lines))
    except (SyntaxError, ValueError, RecursionError):
        return None
    for node, around in index.functions.get((code.co_firstlineno, code.co_name), ()):
        source = _source(node, around, code, lines, index.imports)
        if source is not None and _gives(source, code):
            return source
    return None


def _gives(source: Source, code: CodeType) -> bool:
    try:
        made = compile_source(
            source.filename, source.text, source.shift, source.path, source.futures
        )
    except (SyntaxError, ValueError, IndexError, RecursionError):
        return False
    return _is_same(made, code)


# --- finding the node ---


@dataclass(frozen=True, eq=False)
class Index:
    """What is in a file: the functions by line and name, each with the scopes around it, and the
    names that are imported globally."""

    functions: dict[tuple[int, str], list[tuple[Function, tuple[Scope, ...]]]]
    imports: set[str]


@functools.lru_cache(maxsize=KEPT_FILES)
def _index(text: str) -> Index:
    index = Index({}, set())
    pending: list[tuple[ast.AST, tuple[Scope, ...]]] = [(ast.parse(text), ())]
    while pending:
        node, around = pending.pop()
        own: set[ast.AST] = set()
        if isinstance(node, Scope):
            # Decorators, defaults and bases belong to the scope without.
            own = set(node.body) if isinstance(node.body, list) else {node.body}
            pending += [(each, (*around, node)) for each in own]
        pending += [(each, around) for each in ast.iter_child_nodes(node) if each not in own]
        if isinstance(node, Function):
            name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
            index.functions.setdefault((first_line(node), name), []).append((node, around))
        elif isinstance(node, ast.Import | ast.ImportFrom) and not around:
            index.imports.update(each.asname or each.name.partition(".")[0] for each in node.names)
    return index


def _source(
    node: Function,
    around: tuple[Scope, ...],
    code: CodeType,
    lines: list[str],
    imports: set[str],
) -> Source | None:
    cut = cut_out(node, around, code.co_freevars, lines)
    if cut is None:
        return None
    header, body, path = cut
    named = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    if named & imports:
        # Calls of what a module has imported are compiled otherwise than methods, since 3.11.
        header.insert(0, f"import {', '.join(sorted(named & imports))}")
    first, last = first_line(node), node.end_lineno or 0
    filename = code.co_filename
    if os.path.exists(filename):
        filename = os.path.abspath(filename)  # the daemon may run in another directory
    has_annotations = code.co_flags & _CO_FUTURE_ANNOTATIONS and _holds_annotations(node)
    return Source(
        filename,
        first,
        tuple(lines[first - 1 : last]),
        "".join(line + "\n" for line in header) + body,
        first - len(header) - 1,
        path,
        (ANNOTATIONS,) if has_annotations else (),
        tuple(dict.fromkeys(_global_names(code))),
    )


def _holds_annotations(node: Function) -> bool:
    """Would something within be other than it is if annotations were not mere text?"""
    body = node.body if isinstance(node.body, list) else [node.body]
    return any(
        isinstance(each, ast.AnnAssign)
        or (isinstance(each, ast.arg) and each.annotation is not None)
        or getattr(each, "returns", None) is not None
        for statement in body
        for each in ast.walk(statement)
    )


def _global_names(code: CodeType) -> Iterator[str]:
    """What it looks up in its globals, in the order in which it does."""
    for each in dis.get_instructions(code):
        # A class within a function has its names looked up by these others.
        if "GLOBAL" in each.opname or each.opname == "LOAD_NAME":
            yield each.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


# --- comparing ---

# All that makes a function do what it does. Not the qualified name: of a lambda in a comprehension
# it differs between versions.
_PARTS = (
    *("co_name", "co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars"),
    *("co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_firstlineno"),
    *("co_exceptiontable",),
)


def _is_same(made: CodeType, code: CodeType) -> bool:
    return (
        all(getattr(made, part, None) == getattr(code, part, None) for part in _PARTS)
        and (made.co_flags ^ code.co_flags) & ~_CO_FUTURE_ANNOTATIONS == 0
        and list(made.co_lines()) == list(code.co_lines())
        and _are_same_constants(made.co_consts, code.co_consts)
    )


def _are_same_constants(made: tuple[Any, ...], those: tuple[Any, ...]) -> bool:
    return len(made) == len(those) and all(map(_is_same_constant, made, those))


def _is_same_constant(made: Any, that: Any) -> bool:
    if type(made) is not type(that):
        return False
    if isinstance(made, CodeType):
        return _is_same(made, that)
    if isinstance(made, tuple):
        return _are_same_constants(made, that)
    if isinstance(made, frozenset):
        return {(type(each), each) for each in made} == {(type(each), each) for each in that}
    return repr(made) == repr(that)  # 0.0 is not -0.0
