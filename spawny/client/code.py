"""Pickling functions and classes that no daemon can import, for any interpreter: by source.

The near end of `kernel/code.py`. Functions travel as what they are made of: source, defaults, cells
and the globals that they use, each of which is pickled in its turn. So decorators need not be
understood: what they made (a wrapper with a function in its cell, say) travels like any other.
No code object does.
"""

from __future__ import annotations

import functools
import io
import marshal
import os
import pickle
import sys
import types
import typing
from types import CellType, CodeType, FunctionType, MethodType, ModuleType

from ..kernel import code as far
from .source import NoSource, Source, source_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

REMEDY = "move it into a module that both can import"

# What pickles of code objects that others made have in them. As data it does no harm.
CODE_MARK = b"CodeType"


class CannotTravel(Exception):
    """This cannot go by source; says why, and what to do."""


def far_name(obj: Any) -> str | None:
    """The persistent id of what puts code together at the far end; None for all else."""
    if not issubclass(type(obj), (FunctionType, type)):  # isinstance would ask a proxy's daemon
        return None
    module = obj.__module__
    if type(module) is not str:
        return None
    if module in _FAR_MODULES:
        return f":{module.rpartition('.')[2]}:{obj.__name__}"
    if module.startswith("cloudpickle."):
        folder = os.path.dirname(sys.modules[module].__file__ or "")
        return f"{folder}:{module.partition('.')[2]}:{obj.__name__}"
    return None


_KERNEL = far.__name__.rpartition(".")[0]
_FAR_MODULES = frozenset([f"{_KERNEL}.code", f"{_KERNEL}.classes"])


def is_importable(obj: Any) -> bool:
    """Is this function or class found under its name, in a module that is not the script's own?"""
    module = getattr(obj, "__module__", None)
    if not isinstance(module, str) or module == "__main__":
        return False
    found: Any = sys.modules.get(module)
    for part in obj.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is obj


def describe(obj: Any) -> str:
    """The name of a function or class, and where it stands."""
    name: str = obj.__qualname__
    code = getattr(obj, "__code__", None)
    if code is None:
        return name
    return f"{name} ({os.path.basename(code.co_filename)}, line {code.co_firstlineno})"


class SourcePickler(pickle.Pickler):
    """Pickles by source what does not go by name."""

    def __init__(self, file: Any, protocol: int, **options: Any) -> None:
        super().__init__(file, protocol, **options)
        # Globals that functions share here, they share there.
        self._namespaces: dict[int, dict[str, Any]] = {}
        self._loads_pickles = self._has_code_in_bytes = False
        # For what is said where one of them turns out not to travel.
        self.seen: list[tuple[Any, list[tuple[str, Any]]]] = []

    def persistent_id(self, obj: Any) -> Any:
        if type(obj) in (bytes, bytearray) and CODE_MARK in obj:
            self._has_code_in_bytes = True
        return far_name(obj) or self.elsewhere(obj)

    def elsewhere(self, obj: Any) -> Any:
        """The persistent id of what is no code."""
        return None

    def dump(self, obj: Any) -> None:
        try:
            super().dump(obj)
        except Exception as error:
            error.culprit = self._culprit()  # type: ignore[attr-defined]
            raise
        if self._loads_pickles and self._has_code_in_bytes:
            raise CannotTravel(
                "a pickle within it holds code objects: pass the functions themselves"
            )

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        reduce = _REDUCERS.get(kind)
        if reduce is not None:
            return reduce(self, obj)
        if issubclass(kind, type):
            from .classes import reduce_class  # half of its functions are seldom needed

            return NotImplemented if is_importable(obj) else reduce_class(self, obj)
        return NotImplemented

    # --- what functions are made of ---

    def _function(self, function: FunctionType) -> Any:
        if is_importable(function):
            return NotImplemented
        code = function.__code__
        namespace = function.__globals__
        try:
            source = source_of(code, namespace)
        except NoSource as error:
            raise CannotTravel(
                f"{describe(function)} cannot go by source: {error}; {REMEDY}"
            ) from None
        cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        filled = {name: cell for name, cell in cells.items() if _is_filled(cell)}
        used = {name: namespace[name] for name in source.global_names if name in namespace}
        captured = [(f"variable {name}", cell.cell_contents) for name, cell in filled.items()]
        captured += [(f"global {name}", value) for name, value in used.items()]
        captured += [("a default", each) for each in function.__defaults__ or ()]
        captured += [("a default", each) for each in (function.__kwdefaults__ or {}).values()]
        captured += [(f"attribute {name}", each) for name, each in vars(function).items()]
        self.seen.append((function, captured))
        state = {
            "cells": [(cell, cell.cell_contents) for cell in filled.values()],
            "globals": used,
            "imports": _submodules(code, used),
            "attributes": dict(vars(function)),
            "annotations": travelling_annotations(function),
            "defaults": function.__defaults__,
            "kwdefaults": function.__kwdefaults__,
            "qualname": function.__qualname__,
            "module": function.__module__,
            "doc": function.__doc__,
        }
        made = source, self._namespace(namespace), function.__name__, cells
        return far.make_function, made, state, None, None, far.fill_function

    def _namespace(self, namespace: dict[str, Any]) -> dict[str, Any]:
        known = self._namespaces.get(id(namespace))
        if known is None:
            about = ("__name__", "__package__", "__file__")
            known = {name: namespace[name] for name in about if type(namespace.get(name)) is str}
            self._namespaces[id(namespace)] = known
        return known

    def _source(self, source: Source) -> Any:
        return far.load_source, source.fields()

    def _cell(self, cell: CellType) -> Any:
        return far.make_cell, ()

    def _method(self, method: MethodType) -> Any:
        function = method.__func__
        if type(function) is not FunctionType or is_importable(function):
            return NotImplemented
        return far.make_method, (function, method.__self__)

    def _module(self, module: ModuleType) -> Any:
        name = module.__name__
        if name == "__main__" or sys.modules.get(name) is not module:
            raise CannotTravel(f"module {name} cannot be imported anywhere else: {REMEDY}")
        return far.import_module, (name,)

    def _code(self, code: CodeType) -> Any:
        raise CannotTravel(
            f"the code object of {code.co_name} ({os.path.basename(code.co_filename)}, line"
            f" {code.co_firstlineno}) cannot be executed there: pass the function"
        )

    def _builtin(self, function: Any) -> Any:
        if function is marshal.loads:
            raise CannotTravel("what marshal made is of use to the same version only")
        if function.__name__ == "loads":
            self._loads_pickles = True
        return NotImplemented

    def _property(self, obj: property) -> Any:
        return property, (obj.fget, obj.fset, obj.fdel, obj.__doc__)

    def _wrapped(self, obj: Any) -> Any:
        return type(obj), (obj.__func__,)

    def _cached(self, obj: Any) -> Any:
        if is_importable(obj):
            return NotImplemented
        options = obj.cache_parameters()
        return far.make_cached, (obj.__wrapped__, options["maxsize"], options["typed"])

    def _cached_property(self, obj: functools.cached_property[Any]) -> Any:
        return far.make_cached_property, (obj.func, obj.attrname)

    def _type_variable(self, obj: Any) -> Any:
        module = obj.__module__
        if module != "__main__" and getattr(sys.modules.get(module), obj.__name__, None) is obj:
            return NotImplemented
        return far.make_type_variable, (
            *(obj.__name__, obj.__constraints__, obj.__bound__),
            *(obj.__covariant__, obj.__contravariant__),
        )

    def _culprit(self) -> str:
        """What of a function or class does not travel, for those who have to find it; "" where none
        of these is at fault."""
        # Rather one of the script's own than what the standard library made for it.
        ours = [each for each in self.seen if each[0].__module__ == "__main__"]
        for obj, captured in reversed(ours or self.seen):
            for what, value in captured:
                try:
                    _Trial(io.BytesIO(), far.PROTOCOL).dump(value)
                except Exception:  # noqa: BLE001 (any reason not to travel)
                    return f"{what} of {describe(obj)}: "
        return ""


class _Trial(SourcePickler):
    """Tells whether something can be pickled; nothing of it is sent."""

    def elsewhere(self, obj: Any) -> Any:
        from .callbacks import Callback
        from .proxy import ObjectProxy

        return 0 if issubclass(type(obj), (Callback, ObjectProxy)) else None

    def _culprit(self) -> str:
        return ""


_REDUCERS: dict[type, Callable[[SourcePickler, Any], Any]] = {
    FunctionType: SourcePickler._function,
    Source: SourcePickler._source,
    CellType: SourcePickler._cell,
    MethodType: SourcePickler._method,
    ModuleType: SourcePickler._module,
    CodeType: SourcePickler._code,
    types.BuiltinFunctionType: SourcePickler._builtin,
    property: SourcePickler._property,
    staticmethod: SourcePickler._wrapped,
    classmethod: SourcePickler._wrapped,
    functools._lru_cache_wrapper: SourcePickler._cached,
    functools.cached_property: SourcePickler._cached_property,
    typing.TypeVar: SourcePickler._type_variable,
}


def _is_filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _all_names(code: CodeType) -> set[str]:
    names = set(code.co_names)
    return names.union(*(_all_names(each) for each in code.co_consts if type(each) is CodeType))


def _submodules(code: CodeType, used: dict[str, Any]) -> list[str]:
    """Those that the function reaches through a package of which it has the name."""
    packages = [
        f"{each.__name__}."
        for each in used.values()
        if type(each) is ModuleType and hasattr(each, "__path__")
    ]
    if not packages:
        return []
    names = _all_names(code)
    return [
        name
        for name in list(sys.modules)
        for package in packages
        if name.startswith(package) and names.issuperset(name[len(package) :].split("."))
    ]


def travelling_annotations(obj: Any) -> list[tuple[str, tuple[Any, ...]]]:
    """As `annotations` in the kernel takes them: what does not load there is text there."""
    try:
        annotations = (
            vars(obj).get("__annotations__") if isinstance(obj, type) else (obj.__annotations__)
        )
    except Exception:  # noqa: BLE001 (from 3.14 on it is code of the user's)
        return []
    found: list[tuple[str, tuple[Any, ...]]] = []
    for name, value in (annotations or {}).items():
        is_plain = value is None or type(value) is str
        is_class = issubclass(type(value), type)
        if is_plain or (is_class and value.__flags__ & _IS_HEAP_TYPE and not is_importable(value)):
            found.append((name, (value,)))
            continue
        text = value.__qualname__ if is_class else repr(value)
        try:
            pickled = pickle.dumps(value, far.PROTOCOL)
        except Exception:  # noqa: BLE001 (whatever it is, its text will do)
            pickled = b"\x93"
        found.append((name, (text,) if b"__main__" in pickled else (pickled, text)))
    return found


_IS_HEAP_TYPE = 1 << 9
