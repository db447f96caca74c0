"""What a daemon runs: a script's text, a module, or an instance of a class.

A definition is a value: equal ones have equal digests, so that a second script that asks for the
same name with the same definition attaches to what runs. What travels is `payload()`: bytes that
the supervisor stores and hands on unopened, and that the kernel (`kernel/load.py`) unpickles.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from dataclasses import dataclass, field
from typing import Any

from .errors import InvalidRequest, SerializationError

# A definition is packed before anybody knows which interpreter will open it, and the oldest that
# may (3.6) reads protocol 4.
PAYLOAD_PROTOCOL = 4


class Definition:
    """The base of the three kinds; use one of those."""

    def payload(self) -> bytes:
        """The definition as the kernel reads it: a pickled tuple of a kind and its fields."""
        raise NotImplementedError

    def digest(self) -> str:
        """The identity of a definition: equal definitions have equal digests."""
        return _digest(self.payload())

    def summary(self) -> str:
        """A few words for people, as shown by `spawny ps`."""
        raise NotImplementedError


@dataclass(frozen=True)
class ScriptDefinition(Definition):
    """The text of a script, run as a module of its own; the daemon's root object is that module."""

    script: str
    filename: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.script, str):
            raise InvalidRequest(f"a script is text, not {type(self.script).__name__}")

    def payload(self) -> bytes:
        return _pack("script", self.script, self.filename)

    def digest(self) -> str:
        # A script is its text, whether or not somebody knows the file that it was in.
        return _digest(_pack("script", self.script, None))

    def summary(self) -> str:
        if self.filename:
            return f"script {os.path.basename(self.filename)}"
        lines = [line.strip() for line in self.script.splitlines() if line.strip()]
        first = lines[0] if lines else ""
        return f"script {first[:40]!r}" + (f" (+{len(lines) - 1} lines)" if len(lines) > 1 else "")


@dataclass(frozen=True)
class ModuleDefinition(Definition):
    """A module by its import name, or by name and file path; the root object is that module."""

    module_name: str
    module_path: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.module_name, str) or not self.module_name:
            raise InvalidRequest(f"a module's name is text, not {self.module_name!r}")
        if self.module_path is not None:
            # The daemon may run in another directory.
            path = os.path.abspath(os.fspath(self.module_path))
            if not os.path.exists(path):
                raise InvalidRequest(f"module {self.module_name!r}: there is no file {path}")
            object.__setattr__(self, "module_path", path)

    def payload(self) -> bytes:
        return _pack("module", self.module_name, self.module_path)

    def summary(self) -> str:
        return f"module {self.module_name}"


class InstanceDefinition(Definition):
    """An instance to create in the daemon: `clazz_name` of `module_name`, called with the rest.

    With `module_name` None the class is looked up in the globals of the code that runs this
    definition, then in builtins: `InstanceDefinition(None, "str", 1)`.
    """

    def __init__(self, module_name: str | None, clazz_name: str, *args: Any, **kwargs: Any) -> None:
        if module_name is not None and not isinstance(module_name, str):
            raise InvalidRequest(f"a module's name is text or None, not {module_name!r}")
        if not isinstance(clazz_name, str) or not clazz_name:
            raise InvalidRequest(f"a class's name is text such as 'StringIO', not {clazz_name!r}")
        self.module_name = module_name or None  # an empty name has always meant none
        self.clazz_name = clazz_name
        self.args = args
        self.kwargs = kwargs

    def resolved(self, caller_globals: dict[str, Any]) -> InstanceDefinition | ObjectDefinition:
        """This definition with its module filled in, as seen by the caller."""
        if self.module_name is not None:
            return self
        found = caller_globals.get(self.clazz_name)
        if found is None:
            return InstanceDefinition("builtins", self.clazz_name, *self.args, **self.kwargs)
        module = getattr(found, "__module__", None)
        if module in (None, "__main__"):
            raise InvalidRequest(
                f"{self.clazz_name} is defined in the script that runs here, which no daemon can"
                " import: pass an instance to run_object, or move the class into a module"
            )
        return InstanceDefinition(module, found.__qualname__, *self.args, **self.kwargs)

    def payload(self) -> bytes:
        # The arguments are a pickle in the pickle: where one of them fails to load there, the
        # kernel still knows whose argument it was.
        try:
            arguments = pickle.dumps((self.args, self.kwargs), PAYLOAD_PROTOCOL)
        except Exception as error:
            raise SerializationError(
                f"the arguments of {self.module_name}.{self.clazz_name} cannot travel: {error}"
            ) from error
        return _pack("instance", self.module_name, self.clazz_name, arguments)

    def summary(self) -> str:
        return f"instance {self.module_name}.{self.clazz_name}"

    def __repr__(self) -> str:
        parts = [repr(self.module_name), repr(self.clazz_name), *map(repr, self.args)]
        parts += [f"{key}={value!r}" for key, value in self.kwargs.items()]
        return f"InstanceDefinition({', '.join(parts)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, InstanceDefinition):
            return NotImplemented
        return vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.module_name, self.clazz_name))


@dataclass(frozen=True)
class ObjectDefinition(Definition):
    """An object that exists already, as its pickle; made by `run_object`.

    `interpreter` names the only (implementation, major.minor) that may open it, such as
    `"cpython3.11"`, where the pickle holds code objects; None where any may. For all others there
    is the pickle `by_source` then, or the reason why there is none.
    """

    pickled: bytes = field(repr=False)
    type_name: str
    interpreter: str | None = None
    by_source: bytes | None = field(default=None, repr=False)
    refusal: str = field(default="", repr=False)

    def payload(self) -> bytes:
        fields = self.pickled, self.type_name, self.interpreter, self.by_source, self.refusal
        return _pack("object", *fields)

    def summary(self) -> str:
        return f"object of {self.type_name}"


def _digest(payload: bytes) -> str:
    return hashlib.blake2b(payload, digest_size=16).hexdigest()


def _pack(*fields: object) -> bytes:
    return pickle.dumps(fields, PAYLOAD_PROTOCOL)
