"""Functions cut out of their files: what is sent gives the very function that runs."""

import ast
import importlib.util
import linecache
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

from spawny.client.source import NoSource, source_of
from spawny.kernel.code import compile_source

# Each defines `f` in some place or shape.
SHAPES = {
    "plain": "def f(a, b=1, *c, d=2, **e):\n    return a\n",
    "in a block": "if True:\n    try:\n        def f(): return 1\n    finally:\n        pass\n",
    "tabs": (
        "def outer():\n\tif True:\n\t\tx = 1\n"
        "\t\tdef f():\n\t\t\treturn x\n\t\treturn f\nf = outer()\n"
    ),
    "decorated": (
        "def same(**_): return lambda f: f\n"
        "@same(\n    a=lambda: 1,\n)\n\n@same()  # twice\ndef f():\n    return 1\n"
    ),
    "first line": "f = lambda: 0\n",
    "first line, nested": "f = (lambda x: lambda: x)(1)\n",
    "two on a line": "f, g = lambda x: x + 1, lambda x: x + 2\n",
    "second on a line": "g, f = lambda x: x + 1, lambda x: x + 2\n",
    "lambda over lines": "f = (lambda\n    x,\n  y=2:\n    x +\n  y)\n",
    "lambda with a lambda as default": "f = lambda x, y=lambda: 3: (x, y)\n",
    "lambda beyond ascii": 'ä = {"ü": lambda ß: "é" + ß}; f = ä["ü"]\n',
    "lambda in a comprehension": "f = [lambda: i for i in range(3)][0]\n",
    "lambda as a default": "def g(key=lambda x: -x):\n    return key\nf = g()\n",
    "lambda in a decorator": "def k(x): return lambda _: x\n@k(lambda: 5)\ndef f(): pass\n",
    "closure over several": (
        "def outer(a):\n    b = 1\n    def middle():\n        c = 2\n        def f():\n"
        "            nonlocal b\n            b += 1\n            return a, b, c\n"
        "        return f\n    return middle()\nf = outer(3)\n"
    ),
    "private names": (
        "class C:\n    def m(self):\n        __x = 1\n        def f():\n"
        "            return __x, self.__y\n        return f\nf = C().m()\n"
    ),
    "super": "class C:\n    def f(self):\n        return super().__repr__(), __class__\nf = C.f\n",
    "class declared global": (
        "def outer():\n    global C\n    class C:\n        def f(self):\n            return C\n"
        "outer()\nf = C.f\n"
    ),
    "calls of an imported module": "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n",
    "asynchronous": (
        "async def f(x):\n    async with x as y:\n        async for z in y:\n            yield z\n"
    ),
    "annotations as text": (
        "from __future__ import annotations\ndef f():\n    def g(x: Nowhere) -> Nothing: return x\n"
        "    return g(1)\n"
    ),
    "several statements on a line": "x = 1; f = lambda: x; y = 2\n",
    "constants": "def f():\n    return 0.0, -0.0, 1, True, {1, 2}, (1, (2.0, b'x')), None, ...\n",
    "no newline at the end": "def f():\n    return 1",
    "strings over lines": 'def f():\n    return """\nnot\n  indented\n"""\n',
}


def module_of(text: str, folder: Path) -> Any:
    path = folder / "shape.py"
    path.write_text(text, encoding="utf-8")
    linecache.checkcache()
    spec = importlib.util.spec_from_file_location("shape", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recompiled(function: FunctionType) -> CodeType:
    source = source_of(function.__code__, function.__globals__)
    code: CodeType = compile_source(
        source.filename, source.text, source.shift, source.path, source.futures
    )
    return code


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: str, tmp_path: Path) -> None:
    """Whatever shape the code around it has, it is found and cut out."""
    function = module_of(SHAPES[shape], tmp_path).f
    code = recompiled(function)
    assert code.co_code == function.__code__.co_code
    assert list(code.co_positions()) == list(function.__code__.co_positions())
    assert set(code.co_freevars) == set(function.__code__.co_freevars)


def test_lambdas_are_told_apart(tmp_path: Path) -> None:
    """Each of several on a line is itself."""
    module = module_of(
        "fs = [lambda: 1, lambda: 2, lambda: 1.0, lambda: True, lambda: -1]\n", tmp_path
    )
    again = [FunctionType(recompiled(each), {})() for each in module.fs]
    assert [repr(each) for each in again] == ["1", "2", "1.0", "True", "-1"]


def test_the_skeleton_alone_is_not_run(tmp_path: Path) -> None:
    """What stands around the function is not in what is sent."""
    text = "def outer(x):\n    print('never again')\n    return lambda: x\nf = outer(1)\n"
    source = source_of(module_of(text, tmp_path).f.__code__, {})
    assert "never" not in source.text
    assert source.lines == ("    return lambda: x\n",)
    assert "x = None" in source.text


def test_names_that_are_looked_up(tmp_path: Path) -> None:
    """Those of functions and classes within count, too; attributes and locals do not."""
    text = (
        "def f(a):\n    b = one.attribute\n    def g():\n        return two(b)\n"
        "    class C(three):\n        four = five\n    return [six for a in b]\n"
    )
    names = set(source_of(module_of(text, tmp_path).f.__code__, {}).global_names)
    assert {"one", "two", "three", "five", "six"} <= names
    assert not {"a", "b", "g", "C", "attribute"} & names


def test_an_edited_file_is_noticed(tmp_path: Path) -> None:
    """Another constant is another function, even where 1 == True."""
    module = module_of("def f():\n    return 1\n", tmp_path)
    (tmp_path / "shape.py").write_text("def f():\n    return True\n")
    with pytest.raises(NoSource, match="line 1"):
        source_of(module.f.__code__, {})


def test_a_file_that_grew_above(tmp_path: Path) -> None:
    """Where the line is another one now, what was read when it was imported still serves."""
    module = module_of("def f():\n    return 1\n", tmp_path)
    linecache.getlines(module.__file__)
    (tmp_path / "shape.py").write_text("# new\n\ndef f():\n    return 2\n")
    assert source_of(module.f.__code__, {}).lines == ("def f():\n", "    return 1\n")


def test_replaced_code_is_noticed(tmp_path: Path) -> None:
    """A function whose code object is not that of its lines is not taken for them."""
    module = module_of("def f():\n    return 1\n", tmp_path)
    code = module.f.__code__.replace(co_consts=(None, 2))
    with pytest.raises(NoSource, match="does not say"):
        source_of(code, {})


def functions_of(code: CodeType) -> Iterator[CodeType]:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            is_function = (
                each.co_flags & 3 == 3 and each.co_name.partition(" ")[0] not in NO_FUNCTIONS
            )
            if is_function:
                yield each
            yield from functions_of(each)


NO_FUNCTIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>", "<generic")


@pytest.mark.parametrize("name", ["dataclasses", "enum", "typing", "functools", "asyncio/tasks"])
def test_the_standard_library(name: str) -> None:
    """Every function of some large modules is found in its file."""
    path = Path(sysconfig.get_path("stdlib"), f"{name}.py")
    code = compile(
        ast.parse(path.read_text(encoding="utf-8")), str(path), "exec", dont_inherit=True
    )
    found = [source_of(each, {}) for each in functions_of(code)]
    assert len(found) > 20
