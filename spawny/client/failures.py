"""Exceptions that go between here and a daemon, raised at the other end as what they are.

The form in which they travel, and how one is taken apart and put together, is the same in both
directions and at both ends: see `kernel/failures.py`. It is imported when something has failed.
"""

from __future__ import annotations

from .. import errors
from ..errors import RemoteError, RemoteTraceback
from .serialize import Unsendable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def describe_exception(error: BaseException) -> tuple[Any, ...]:
    """The failure that tells of an exception here, for a daemon to rebuild; never fails."""
    from ..kernel import failures

    failure: tuple[Any, ...] = failures.describe(error)
    return failure


def is_ours(failure: tuple[Any, ...]) -> bool:
    """Is it an error of spawny's own, told by the daemon, rather than one of user code?"""
    return len(failure) == 5


def remote_exception(failure: tuple[Any, ...]) -> BaseException:
    """The exception that a daemon tells of, its traceback there as the cause.

    Of its real class where that imports here; else of a class of the same name that derives from
    `RemoteError` and from the nearest bases that import.
    """
    trace = failure[4]
    if is_ours(failure):
        versions, _, name, message, _ = failure
        if versions:
            from ..kernel import names

            message += names.compare(versions)
        kind = Unsendable if name == "Unsendable" else getattr(errors, name)
        error: BaseException = kind(message)
    else:
        from ..kernel import failures

        error = failures.restore(failure, RemoteError)
    if trace:
        error.__cause__ = RemoteTraceback(trace)
    return error
