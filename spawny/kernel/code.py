"""Functions that clients define, and whatever they are made of: put together from what is sent.

A pickle of a client's names what puts these together by persistent ids that are texts:

    :MODULE:NAME          a function of this module or of `classes.py`
    FOLDER:MODULE:NAME    one of the client's own cloudpickle, which lies in this folder

The latter is for clients of our very version, and *lent*: their cloudpickle is loaded under a
private name, whether or not there is one in this environment, and user code here does not see it.

To all other clients byte code is no use (it loads, it may run, and then it crashes the
interpreter), so from them comes *source*: a skeleton of the scopes around a function, which are
there only to give it its free variables, its `__class__` and the names that Python makes of
`__private` ones; and in it, the function as it stands in its file. It is compiled here, and
nothing of it runs but what is called. The client has compiled the same with `compile_source`
before, to see that it gives the very function.
"""

import __future__

import ast
import builtins
import functools
import importlib
import linecache
import sys
import types
import zlib

from . import buffers

# So many sources are kept compiled, so that the same callback is not compiled in each call.
KEPT_SOURCES = 500

# Which the oldest interpreter reads.
PROTOCOL = 4

_lent = {}  # folder -> name of the package that it is loaded as
_compiled = {}  # source -> (code, name that its lines have in linecache or None)


class CodeError(Exception):
    """What the client defines cannot be put together here; `remedy` says what to do."""

    def __init__(self, text, remedy):
        super().__init__(text)
        self.remedy = remedy


class Unpickler(buffers.Unpickler):
    """Loads what holds no references but to what puts code together, such as a definition."""

    def persistent_load(self, pid):
        return maker(pid)


def maker(pid):
    """What this persistent id names."""
    folder, module, name = pid.rsplit(":", 2)
    package = _lent_package(folder) if folder else __package__
    return getattr(importlib.import_module("%s.%s" % (package, module)), name)


def _lent_package(folder):
    name = _lent.get(folder)
    if name is None:
        # Not by its `__init__`, which only collects the public names.
        name = "_spawny_lent_%08x" % (zlib.crc32(folder.encode("utf-8", "surrogatepass")))
        package = types.ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package
        _lent[folder] = name
    return name


def lent_modules():
    """The cloudpickles in use here."""
    modules = [sys.modules.get(name + ".cloudpickle") for name in _lent.values()]
    return [each for each in modules if each is not None]


# --- source ---


def compile_source(filename, text, shift, path, futures):
    """The code object that this path of names leads to in the text, whose lines are numbered
    `shift` further than they stand."""
    flags = 0
    if sys.version_info < (3, 7):
        # A StopIteration that leaves a generator is an error in all later versions.
        flags |= __future__.generator_stop.compiler_flag
    for each in futures:
        feature = getattr(__future__, each, None)
        if feature is None:
            raise SyntaxError("future feature %s is not defined" % each, (filename, 1, 1, ""))
        flags |= feature.compiler_flag
    try:
        tree = ast.parse(text, filename)
    except SyntaxError as error:
        if error.lineno is not None:
            error.lineno += shift
        raise
    for node in ast.walk(tree):
        for name in ("lineno", "end_lineno"):
            line = getattr(node, name, None)
            if line is not None:
                # Of a function in the first lines there is no room for the skeleton.
                setattr(node, name, max(1, line + shift))
    return _follow(compile(tree, filename, "exec", flags, True), path)


def _follow(code, path):
    for name in path:
        inner = [each for each in code.co_consts if isinstance(each, types.CodeType)]
        # Where a function has type parameters, there is a scope of these around it.
        inner += [
            each
            for generic in inner
            if generic.co_name[:9] == "<generic "
            for each in generic.co_consts
            if isinstance(each, types.CodeType)
        ]
        # The last: a lambda may have others as the defaults of its parameters.
        code = [each for each in inner if each.co_name == name][-1]
    return code


def load_source(filename, first, lines, text, shift, path, futures, version):
    """The code object of a function as the client sends it: `lines` are those that it has in its
    file, from number `first` on."""
    key = filename, first, lines, text, futures
    known = _compiled.get(key)
    if known is not None:
        return known[0]
    shown, is_made_up = _shown(filename, first, lines)
    try:
        code = compile_source(shown, text, shift, path, futures)
    except SyntaxError as error:
        here = "%s %d.%d" % ((sys.implementation.name,) + sys.version_info[:2])
        text = "%s cannot compile %s: %s in line %s of %s"
        raise CodeError(
            text % (here, path[-1], error.msg, error.lineno, filename),
            "it is written for %s; write it for both" % version,
        ) from None
    if len(_compiled) >= KEPT_SOURCES:
        for old in list(_compiled)[: KEPT_SOURCES // 2]:
            linecache.cache.pop(_compiled.pop(old)[1], None)
    _compiled[key] = code, shown if is_made_up else None
    return code


def _shown(filename, first, lines):
    """(what tracebacks call the file, is the name made up?)"""
    linecache.checkcache(filename)
    if tuple(linecache.getlines(filename)[first - 1 : first - 1 + len(lines)]) == lines:
        return filename, False
    # A cell of a notebook, or a file that was edited meanwhile, or that is not on this machine. Its
    # own name is another's here, who knows what that has in these lines.
    content = "".join(lines)
    number = zlib.crc32(content.encode("utf-8", "surrogatepass"))
    shown = "<%s %08x>" % (filename.strip("<>"), number)
    # None for the time keeps them for good.
    linecache.cache[shown] = (len(content), None, ["\n"] * (first - 1) + list(lines), shown)
    return shown, True


# --- functions ---


def make_cell():
    """A cell with nothing in it: what is in it may lead back to its function."""
    if False:
        content = None
    return (lambda: content).__closure__[0]


def _cell_setter():
    content = None

    def set_content(value):
        nonlocal content
        content = value

    return set_content


def _fill_cell(cell, value):
    # Before 3.7 `cell_contents` could not be set.
    setter = _cell_setter()
    types.FunctionType(setter.__code__, {}, "", (), (cell,))(value)


def make_function(code, namespace, name, cells):
    """A function that has neither its globals yet nor anything in its cells."""
    namespace.setdefault("__builtins__", builtins)
    closure = tuple(cells[each] for each in code.co_freevars) or None
    return types.FunctionType(code, namespace, name, None, closure)


def fill_function(function, state):
    """Give it what it was sent with; its own globals among that may be itself."""
    for name in state.pop("imports"):
        importlib.import_module(name)
    for cell, value in state.pop("cells"):
        _fill_cell(cell, value)
    function.__globals__.update(state.pop("globals"))
    function.__dict__.update(state.pop("attributes"))
    function.__annotations__ = annotations(state.pop("annotations"))
    for name, value in state.items():
        setattr(function, "__%s__" % name, value)


def annotations(items):
    """Annotations, as text where they do not load here: (value,) or (pickle, text) of each."""
    found = {}
    for name, item in items:
        try:
            found[name] = item[0] if len(item) == 1 else buffers.loads(item[0])
        except Exception:  # typing has more to offer with each version
            found[name] = item[1]
    return found


def make_method(function, instance):
    """A bound method."""
    return types.MethodType(function, instance)


def make_cached(function, most, is_typed):
    """A function of `functools.lru_cache`, with nothing in its cache."""
    return functools.lru_cache(most, is_typed)(function)


def make_cached_property(function, name):
    """One of `functools.cached_property`, which has a lock in some versions."""
    made = functools.cached_property(function)
    made.attrname = name
    return made


def make_type_variable(name, constraints, bound, is_covariant, is_contravariant):
    """A `typing.TypeVar`."""
    import typing

    return typing.TypeVar(
        name, *constraints, bound=bound, covariant=is_covariant, contravariant=is_contravariant
    )


def make_type(name):
    """A type of Python itself that has no name in any module but `types`."""
    return getattr(types, name)


def import_module(name):
    """A module by its name."""
    return importlib.import_module(name)
