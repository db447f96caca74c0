"""A function cut out of its file, in a skeleton of the scopes around it.

The skeleton gives the function its free variables, its `__class__` and the names that Python makes
of `__private` ones. It is compiled and never run. The function's own lines stay as they are, in
their columns. Its decorators are left out, since they have done their work: what they made of the
function is what is sent.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Scope = Function | ast.ClassDef

# The lines of the skeleton, the function's own, and the names that lead to it.
Cut = tuple[list[str], str, tuple[str, ...]]


def first_line(node: Function) -> int:
    """As code objects count it: decorators are part of it."""
    if isinstance(node, ast.Lambda):
        return node.lineno
    return min(each.lineno for each in [node, *node.decorator_list])


def cut_out(
    node: Function, around: tuple[Scope, ...], free_names: Sequence[str], lines: list[str]
) -> Cut | None:
    """The function, with these scopes around it; None where nothing would bind its free names, so
    that it is not the one that was meant."""
    bound_by_types = {name for each in (*around, node) for name in _type_parameters(each)}
    free = [name for name in free_names if name not in {"__class__", *bound_by_types}]
    if isinstance(node, ast.Lambda):
        return _lambda_text(node, around, free, lines)
    if free and not any(isinstance(each, Function) for each in around):
        return None
    return _def_text(node, around, free, lines)


def _def_text(
    node: ast.FunctionDef | ast.AsyncFunctionDef,
    around: tuple[Scope, ...],
    free: list[str],
    lines: list[str],
) -> Cut:
    indents = [_indent(lines[each.lineno - 1]) for each in (*around, node)]
    header = ["if 1:"] if indents[0] else []
    scopes = zip(around, (*around, node)[1:], indents, indents[1:], strict=False)
    for scope, inside, indent, inner in scopes:
        header.append(indent + _scope_line(scope))
        if free and isinstance(scope, Function):
            header.append(inner + _binding(free))
            free = []
        if isinstance(scope, Function) and _is_global(inside, scope):
            header.append(f"{inner}global {_name(inside)}")
    first = first_line(node)
    body = lines[first - 1 : node.end_lineno]
    if first < node.lineno:
        # Something in their place, as the function begins with them.
        instead = [indents[-1] + "@_\n"] + ["\n"] * (node.lineno - first - 1)
        body[: node.lineno - first] = instead
    path = (*(_name(each) for each in around), node.name)
    return header, "".join(body), path


def _lambda_text(
    node: ast.Lambda, around: tuple[Scope, ...], free: list[str], lines: list[str]
) -> Cut:
    header: list[str] = []
    path = []
    if free and not any(isinstance(each, Function) for each in around):
        # Those of a comprehension, which has a scope of its own in some versions.
        header += ["def _():", " " + _binding(free)]
        path, free = ["_"], []
    for scope, inside in zip(around, (*around, node)[1:], strict=True):
        header.append(" " * len(path) + _scope_line(scope))
        path.append(_name(scope))
        if free and isinstance(scope, Function):
            header.append(" " * len(path) + _binding(free))
            free = []
        if isinstance(scope, Function) and _is_global(inside, scope):
            header.append(f"{' ' * len(path)}global {_name(inside)}")
    header.append(" " * len(path) + "(")
    assert node.end_lineno is not None
    part = [line.encode() for line in lines[node.lineno - 1 : node.end_lineno]]
    part[-1] = part[-1][: node.end_col_offset]
    # In its own columns, which tracebacks point at.
    part[0] = b" " * node.col_offset + part[0][node.col_offset :]
    body = b"".join(part).decode() + "\n" + " " * len(path) + ")\n"
    return header, body, (*path, "<lambda>")


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" \t\f"))]


def _binding(names: list[str]) -> str:
    return " = ".join([*names, "None"])


def _name(scope: Scope) -> str:
    return "_" if isinstance(scope, ast.Lambda) else scope.name


def _scope_line(scope: Scope) -> str:
    parameters = _type_parameters(scope)
    listed = f"[{', '.join(parameters.values())}]" if parameters else ""
    if isinstance(scope, ast.ClassDef):
        return f"class {scope.name}{listed}:"
    return f"def {_name(scope)}{listed}():"


def _is_global(inside: Scope, scope: Function) -> bool:
    """Is this function or class, defined in that function, declared global there?"""
    return any(
        isinstance(each, ast.Global) and _name(inside) in each.names for each in ast.walk(scope)
    )


def _type_parameters(scope: Scope) -> dict[str, str]:
    """Of Python 3.12: name -> how it is written."""
    return {each.name: ast.unparse(each) for each in getattr(scope, "type_params", ())}
