"""Run Python code in another, persistent interpreter, and use it as if it were local.

Every public name is imported on first use (PEP 562), so `import spawny` itself costs next to
nothing and loads neither zmq nor asyncio, logging, multiprocessing, cloudpickle or psutil.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "3.0.0.dev0"

if TYPE_CHECKING:
    from .client.launch import attach, run_module, run_object, run_script
    from .client.proxy import ObjectProxy
    from .client.run import Daemon, daemon, ref, value
    from .client.supervisor import Supervisor, connect
    from .control import DaemonStatus
    from .definitions import InstanceDefinition, ModuleDefinition, ScriptDefinition
    from .errors import (
        CallCancelled,
        CallTimeout,
        DaemonDied,
        DaemonExists,
        DaemonNotFound,
        DaemonStartError,
        InterpreterNotFound,
        InvalidRequest,
        RemoteError,
        RemoteTraceback,
        SerializationError,
        SpawnyError,
        StaleReference,
        SupervisorUnavailable,
        UnsafePath,
        VersionMismatch,
    )

_HOME_OF = {
    "attach": ".client.launch",
    "run_module": ".client.launch",
    "run_object": ".client.launch",
    "run_script": ".client.launch",
    "ObjectProxy": ".client.proxy",
    "Daemon": ".client.run",
    "daemon": ".client.run",
    "ref": ".client.run",
    "value": ".client.run",
    "Supervisor": ".client.supervisor",
    "connect": ".client.supervisor",
    "DaemonStatus": ".control",
    "InstanceDefinition": ".definitions",
    "ModuleDefinition": ".definitions",
    "ScriptDefinition": ".definitions",
    "CallCancelled": ".errors",
    "CallTimeout": ".errors",
    "DaemonDied": ".errors",
    "DaemonExists": ".errors",
    "DaemonNotFound": ".errors",
    "DaemonStartError": ".errors",
    "InterpreterNotFound": ".errors",
    "InvalidRequest": ".errors",
    "RemoteError": ".errors",
    "RemoteTraceback": ".errors",
    "SerializationError": ".errors",
    "SpawnyError": ".errors",
    "StaleReference": ".errors",
    "SupervisorUnavailable": ".errors",
    "UnsafePath": ".errors",
    "VersionMismatch": ".errors",
}

__all__ = [*_HOME_OF, "__version__"]  # noqa: PLE0604 (all of them are strings)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(home, __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
