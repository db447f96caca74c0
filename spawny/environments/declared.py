"""The environments of the daemons that the configuration declares.

`spawny reload` builds them, with its user's credentials and terminal. The supervisor takes what is
there: it starts daemons with the machine, and must not wait for an index then.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..config import DeclaredDaemon
from ..definitions import ScriptDefinition
from .obtain import present
from .requirements import Requirements, read
from .store import Environment


def required(daemon: DeclaredDaemon, folder: str) -> Requirements | None:
    """What it requires; paths are relative to the folder of the configuration.

    Raises `InvalidRequest`.
    """
    definition = daemon.definition
    script = definition.script if isinstance(definition, ScriptDefinition) else None
    return read(daemon.requirements, folder, script)


def environment(
    daemon: DeclaredDaemon, wanted: Requirements, folder: str, python: str
) -> Environment | None:
    """The environment that it is to run in, made with its interpreter or, where it names none, with
    this one, the supervisor's; None where that was not built yet."""
    return present(wanted, daemon.python or python, variables(daemon), folder)


def variables(daemon: DeclaredDaemon) -> Mapping[str, str]:
    """Those that count for its interpreter and for indexes."""
    return {**os.environ, **daemon.env}
