"""Run Python code in another, persistent interpreter, and use it as if it were local.

Every public name is imported on first use (PEP 562), so `import spawny` itself costs next to
nothing and loads neither zmq nor asyncio, logging, multiprocessing, cloudpickle or psutil.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "3.0.0.dev1"

# By hand: `typing` would be the most expensive import of a script that attaches.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .client import aio as aio
    from .client.batch import batch as batch
    from .client.callbacks import callback as callback
    from .client.daemon_pool import DaemonPool as DaemonPool
    from .client.daemon_pool import pool as pool
    from .client.executor import Executor as Executor
    from .client.futures import submit as submit
    from .client.launch import attach as attach
    from .client.launch import run_module as run_module
    from .client.launch import run_object as run_object
    from .client.launch import run_script as run_script
    from .client.proxy import ObjectProxy as ObjectProxy
    from .client.run import Daemon as Daemon
    from .client.run import daemon as daemon
    from .client.run import oneway as oneway
    from .client.run import ref as ref
    from .client.run import value as value
    from .client.scope import timeout as timeout
    from .client.supervisor import Supervisor as Supervisor
    from .client.supervisor import connect as connect
    from .control import DaemonStatus as DaemonStatus
    from .control import ZygoteStatus as ZygoteStatus
    from .definitions import InstanceDefinition as InstanceDefinition
    from .definitions import ModuleDefinition as ModuleDefinition
    from .definitions import ScriptDefinition as ScriptDefinition
    from .errors import (
        CallCancelled as CallCancelled,
    )
    from .errors import (
        CallTimeout as CallTimeout,
    )
    from .errors import (
        DaemonDied as DaemonDied,
    )
    from .errors import (
        DaemonDrifted as DaemonDrifted,
    )
    from .errors import (
        DaemonExists as DaemonExists,
    )
    from .errors import (
        DaemonNotFound as DaemonNotFound,
    )
    from .errors import (
        DaemonStartError as DaemonStartError,
    )
    from .errors import (
        DriftWarning as DriftWarning,
    )
    from .errors import (
        EnvironmentFailed as EnvironmentFailed,
    )
    from .errors import (
        InterpreterNotFound as InterpreterNotFound,
    )
    from .errors import (
        InvalidRequest as InvalidRequest,
    )
    from .errors import (
        RemoteError as RemoteError,
    )
    from .errors import (
        RemoteTraceback as RemoteTraceback,
    )
    from .errors import (
        SerializationError as SerializationError,
    )
    from .errors import (
        SpawnyError as SpawnyError,
    )
    from .errors import (
        StaleModuleWarning as StaleModuleWarning,
    )
    from .errors import (
        StaleReference as StaleReference,
    )
    from .errors import (
        SupervisorUnavailable as SupervisorUnavailable,
    )
    from .errors import (
        UnsafePath as UnsafePath,
    )
    from .errors import (
        UpgradeFailed as UpgradeFailed,
    )
    from .errors import (
        VersionMismatch as VersionMismatch,
    )
    from .interpreters.choose import pythons as pythons
    from .interpreters.found import Found as Found

_HOME_OF = {
    "aio": ".client.aio",
    "DaemonPool": ".client.daemon_pool",
    "pool": ".client.daemon_pool",
    "Executor": ".client.executor",
    "submit": ".client.futures",
    "batch": ".client.batch",
    "callback": ".client.callbacks",
    "attach": ".client.launch",
    "run_module": ".client.launch",
    "run_object": ".client.launch",
    "run_script": ".client.launch",
    "ObjectProxy": ".client.proxy",
    "Daemon": ".client.run",
    "daemon": ".client.run",
    "oneway": ".client.run",
    "ref": ".client.run",
    "value": ".client.run",
    "timeout": ".client.scope",
    "Supervisor": ".client.supervisor",
    "connect": ".client.supervisor",
    "DaemonStatus": ".control",
    "ZygoteStatus": ".control",
    "InstanceDefinition": ".definitions",
    "ModuleDefinition": ".definitions",
    "ScriptDefinition": ".definitions",
    "CallCancelled": ".errors",
    "CallTimeout": ".errors",
    "DaemonDied": ".errors",
    "DaemonDrifted": ".errors",
    "DaemonExists": ".errors",
    "DaemonNotFound": ".errors",
    "DaemonStartError": ".errors",
    "EnvironmentFailed": ".errors",
    "DriftWarning": ".errors",
    "InterpreterNotFound": ".errors",
    "InvalidRequest": ".errors",
    "RemoteError": ".errors",
    "RemoteTraceback": ".errors",
    "SerializationError": ".errors",
    "SpawnyError": ".errors",
    "StaleModuleWarning": ".errors",
    "StaleReference": ".errors",
    "SupervisorUnavailable": ".errors",
    "UnsafePath": ".errors",
    "UpgradeFailed": ".errors",
    "VersionMismatch": ".errors",
    "pythons": ".interpreters.choose",
    "Found": ".interpreters.found",
}

__all__ = [*_HOME_OF, "__version__"]  # noqa: PLE0604 (all of them are strings)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: Any = import_module(home, __name__)
    if name != "aio":  # which is a module itself
        found = getattr(found, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
