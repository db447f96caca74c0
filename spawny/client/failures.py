"""Exceptions that come from a daemon, raised here as what they are where that is possible."""

from __future__ import annotations

import pickle

from .. import errors
from ..errors import RemoteError, RemoteTraceback
from .log import log
from .serialize import Unsendable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def is_ours(failure: tuple[Any, ...]) -> bool:
    """Is it an error of spawny's own, told by the daemon, rather than one of user code?"""
    return bool(failure[1] == "spawny.errors" and failure[0] is None)


def remote_exception(failure: tuple[Any, ...]) -> BaseException:
    """The exception of an ERROR's body: its real class where that loads here."""
    pickled, module, qualname, message, trace = failure
    if is_ours(failure):
        kind = Unsendable if qualname == "Unsendable" else getattr(errors, qualname)
        error: BaseException = kind(message)
    else:
        error = RemoteError(f"{module}.{qualname}", message, trace)
        if pickled is not None:
            try:
                loaded = pickle.loads(pickled)
            except Exception as unloadable:  # noqa: BLE001 (loading runs the classes' own code)
                log("debug", "%s.%s does not load here: %s", module, qualname, unloadable)
            else:
                error = loaded if isinstance(loaded, BaseException) else error
    if trace:
        error.__cause__ = RemoteTraceback(trace)
    return error
