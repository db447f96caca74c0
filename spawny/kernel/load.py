"""Turns a definition's payload (see `spawny/definitions.py`) into the daemon's root object."""

import builtins
import importlib
import linecache
import os
import pickle
import sys
import types
import zlib

from . import buffers
from .failures import KernelError

SCRIPT_PREFIX = "spawny_script_"


def load(payload, preload=()):
    """The root object of a definition, made once the modules of these names are imported. Whatever
    user code raises passes through."""
    for name in preload:
        importlib.import_module(name)
    fields = pickle.loads(payload)
    return _LOADERS[fields[0]](*fields[1:])


def interpreter_tag():
    """The implementation and version between which code objects may travel, such as cpython3.11."""
    return "%s%d.%d" % ((sys.implementation.name,) + sys.version_info[:2])


def script_name(script):
    """The name of the module that a script of this text is: one that no module has, here or at a
    client, since its classes must not be mistaken for those of one that can be imported there."""
    crc = zlib.crc32(script.encode("utf-8", "surrogatepass")) & 0xFFFFFFFF
    return "%s%08x" % (SCRIPT_PREFIX, crc)


def _load_script(script, filename):
    name = script_name(script)
    shown = filename or "<%s>" % name
    # Tracebacks and inspect.getsource read lines from here; None for the time keeps them for good.
    linecache.cache[shown] = (len(script), None, script.splitlines(True), shown)
    module = types.ModuleType(name)
    if filename:
        module.__file__ = filename
    sys.modules[name] = module
    try:
        exec(compile(script, shown, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load_module(name, path):
    if path is None:
        return importlib.import_module(name)
    from importlib import util  # here, since most daemons never need it

    if os.path.isdir(path):
        folder, path = path, os.path.join(path, "__init__.py")
        spec = util.spec_from_file_location(name, path, submodule_search_locations=[folder])
    else:
        spec = util.spec_from_file_location(name, path)
    if spec is None:
        raise KernelError("DaemonStartError", "%s is not the file of a Python module" % path)
    module = util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return sys.modules.get(name, module)


def _load_instance(module_name, class_name, arguments):
    found = builtins if module_name is None else importlib.import_module(module_name)
    for part in class_name.split("."):
        found = getattr(found, part)
    args, kwargs = buffers.loads(arguments)
    return found(*args, **kwargs)


def _load_object(pickled, type_name, interpreter, by_source, refusal):
    if interpreter is None:
        return buffers.loads(pickled)
    from .code import CodeError, Unpickler

    if interpreter == interpreter_tag():
        return Unpickler(pickled).load()
    try:
        if by_source is None:
            raise CodeError(refusal, "or use an interpreter of the same version")
        return Unpickler(by_source).load()
    except CodeError as error:
        raise KernelError(
            "DaemonStartError",
            "the %s to run holds code of %s, which %s cannot execute, and it cannot go by source:"
            " %s; %s" % (type_name, interpreter, interpreter_tag(), error, error.remedy),
        ) from None


_LOADERS = {
    "script": _load_script,
    "module": _load_module,
    "instance": _load_instance,
    "object": _load_object,
}
