"""The name of an environment: after what is in it, and what it was made with.

The first half is that of the requirements, so that the path of a daemon's interpreter tells what
the daemon was required to have: to attach, nobody need ask anybody. The second half has the rest:
the interpreter, and where packages come from.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # who attaches needs none of them
    from .bases import Base
    from .indexes import Indexes
    from .requirements import Requirements

# 48 bits each: a user has some dozen environments.
_DIGITS = 12

PATTERN = re.compile(rf"[0-9a-f]{{{_DIGITS}}}-[0-9a-f]{{{_DIGITS}}}\Z")


def name_of(requirements: Requirements, base: Base, indexes: Indexes) -> str:
    """The name of the environment that is made of these."""
    place = hashlib.blake2b(f"{base.digest()}{indexes.digest()}".encode()).hexdigest()
    return f"{requirements.digest()[:_DIGITS]}-{place[:_DIGITS]}"


def name_in(executable: str, environments: str) -> str | None:
    """The name of the environment here that this interpreter belongs to; None for any other."""
    folder, name = os.path.split(_prefix(executable))
    if PATTERN.match(name) and os.path.realpath(folder) == os.path.realpath(environments):
        return name
    return None


def has(executable: str, requirements: Requirements) -> bool:
    """Whether this interpreter is that of an environment with these requirements."""
    name = os.path.basename(_prefix(executable))
    return bool(PATTERN.match(name)) and name.startswith(requirements.digest()[:_DIGITS])


def _prefix(executable: str) -> str:
    return os.path.dirname(os.path.dirname(executable))
