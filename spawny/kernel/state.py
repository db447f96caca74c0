"""What a daemon hands on to its successor: what its root's `__spawny_save__()` gives.

The one rule: the file is whole or not there, and it is for the one process that is told its token.
Nobody but the two opens it. Hooks are functions of a module, methods of an instance:

    __spawny_save__()          -> the state, which must be picklable
    __spawny_restore__(state)  called in the new process, once the definition has been carried out
"""

import os
import pickle

from .failures import KernelError, describe_error, format_error

_Module = type(os)


class State:
    """Of the daemon of this name; `path` is where it is kept in between."""

    def __init__(self, runtime, name):
        self.path = os.path.join(runtime, "saved", name)

    def save(self, root, token):
        """Keep what the root wants kept; False where it wants nothing. Raises what its hook does,
        and then nothing is kept."""
        hook = _hook(root, "__spawny_save__")
        if hook is None:
            return False
        if _hook(root, "__spawny_restore__") is None:
            raise TypeError("there is a __spawny_save__, but no __spawny_restore__")
        pickled = pickle.dumps(hook(), pickle.HIGHEST_PROTOCOL)
        folder, name = os.path.split(self.path)
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            pass
        temporary = os.path.join(folder, "_" + name)  # which names no daemon
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with open(os.open(temporary, flags, 0o600), "wb") as file:
                # In front, and in plain text: the supervisor looks at it, and unpickles nothing.
                file.write(token.encode("ascii") + b"\n")
                file.write(pickled)
            os.replace(temporary, self.path)
        except BaseException:
            try:
                os.unlink(temporary)
            except OSError:
                pass
            raise
        return True

    def restore(self, root, token):
        """Give the root what was kept under this token. Where it does not take it, the file stays
        for another try; raises a KernelError that names it."""
        try:
            with open(self.path, "rb") as file:
                if file.readline().strip() != token.encode("ascii"):
                    raise ValueError("it is not of the process before")
                state = pickle.load(file)
            _hook(root, "__spawny_restore__")(state)
        except (Exception, SystemExit) as error:  # a SystemExit would end whoever attaches
            _, kind, message = describe_error(error)
            text = "the state in %s cannot be restored, and is kept: %s: %s"
            text %= (self.path, kind, message)
            raise KernelError("DaemonStartError", text, format_error(error)) from None
        os.unlink(self.path)


def _hook(root, name):
    if type(root) is _Module:
        return vars(root).get(name)
    return getattr(root, name, None) if hasattr(type(root), name) else None
