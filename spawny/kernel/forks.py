"""Hooks around `fork()`, on Python 3.6 too, where the system's own are missing."""

import os


def at_fork(before=None, after_in_parent=None, after_in_child=None):
    """Call these functions around every `os.fork()` of this process, for its whole life."""
    if hasattr(os, "register_at_fork"):
        hooks = {
            "before": before,
            "after_in_parent": after_in_parent,
            "after_in_child": after_in_child,
        }
        os.register_at_fork(**{name: hook for name, hook in hooks.items() if hook is not None})
        return
    # Python 3.6: wrap the one function that everything forks through.
    fork = os.fork

    def fork_with_hooks():
        if before is not None:
            before()
        try:
            pid = fork()
        except BaseException:
            if after_in_parent is not None:
                after_in_parent()
            raise
        hook = after_in_parent if pid else after_in_child
        if hook is not None:
            hook()
        return pid

    os.fork = fork_with_hooks
