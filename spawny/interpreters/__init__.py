"""Which Python interpreters there are, and which of them a user means.

`spec` says what may be written, `places` where interpreters may be, `probe` what each says of
itself, `cache` what they have said before; `choose` puts these together.
"""

from __future__ import annotations

# By hand, as the names below: who only wants to know what a version is, loads `spec` alone.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .choose import find as find
    from .choose import locate as locate
    from .choose import pythons as pythons
    from .choose import survey as survey
    from .found import Found as Found

_HOME_OF = {
    "find": "choose",
    "locate": "choose",
    "pythons": "choose",
    "survey": "choose",
    "Found": "found",
}

__all__ = [*_HOME_OF]  # noqa: PLE0604 (all of them are strings)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
