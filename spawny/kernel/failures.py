"""Exceptions of user code, and of ours, as they are told to clients."""

import pickle
import traceback

from . import objects, wire

# Tracebacks and reprs go into one frame of the link, too, which has a limit.
TEXT_LIMIT = 200000

_FOLDER = __file__.rpartition("/")[0]


class KernelError(Exception):
    """An error of spawny's own, raised at the client as the class of that name in spawny.errors."""

    def __init__(self, kind, message, remote_traceback=""):
        super().__init__(message)
        self.kind = kind
        self.remote_traceback = remote_traceback


def _attempt(function, otherwise):
    try:
        return function()
    except BaseException:
        return otherwise


def describe_error(error):
    """(module, qualified name, message) of an exception, as plain texts, whatever it is like."""
    kind = type(error)
    message = _attempt(lambda: str.__str__(str(error))[:TEXT_LIMIT], "(its text cannot be made)")
    module = type.__dict__["__module__"].__get__(kind)
    qualname = type.__dict__["__qualname__"].__get__(kind)
    return str.__str__(module) if isinstance(module, str) else "?", qualname, message


def error_frame(connection, error):
    """The frame for an exception; never fails, whatever the exception is like."""
    kind = type(error)
    if issubclass(kind, KernelError):
        body = (None, "spawny.errors", error.kind, str(error), error.remote_traceback)
    elif kind is objects.UnknownReference:
        body = (None, "spawny.errors", "StaleReference", str(error), "")
    else:
        protocol = connection.session.pickle_protocol
        # Its __reduce__ is the user's code, and may raise anything; without a pickle the client
        # raises a RemoteError from the rest.
        pickled = _attempt(lambda: pickle.dumps(error, protocol), None)
        body = (pickled,) + describe_error(error) + (format_error(error),)
    return wire.frame(wire.ERROR, pickle.dumps(body, 4))


_traceback_of = BaseException.__dict__["__traceback__"]


def format_error(error):
    """The traceback as text, without the frames that are ours."""
    return _attempt(lambda: _format(error), "(its traceback cannot be formatted)")[-TEXT_LIMIT:]


def _format(error):
    whole = traceback.TracebackException(type(error), error, _traceback_of.__get__(error))
    whole.stack[:] = [each for each in whole.stack if not each.filename.startswith(_FOLDER)]
    return "".join(whole.format())


def forget_traceback(error):
    """Let the frames of an exception go: they hold the arguments of a call that is over."""
    _attempt(lambda: _traceback_of.__set__(error, None), None)
