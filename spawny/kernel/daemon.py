"""The whole life of a daemon: `boot.py` calls `main`, which leaves by shutting down."""

import sys

from .guard import Guard
from .server import Server

our_main = None  # boot.py's module, kept alive


def main(name, token, runtime):
    preloaded = None
    if name == "--zygote":
        from .zygote import serve

        (name, token, runtime), preloaded = serve(int(runtime), protocol=token)
    server = Server(name, runtime, preloaded)
    guard = Guard(server, name, token, runtime, preloaded and preloaded.listener)
    if preloaded is not None:
        preloaded.await_parent()
    guard.start()
    server.run()
    server.tasks.close()
    server.flush()
    # atexit functions and user threads have their time; the control thread keeps it.
    sys.exit(guard.exit_code)
