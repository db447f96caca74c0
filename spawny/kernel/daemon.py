"""The whole life of a daemon: `boot.py` calls `main`, which leaves by shutting down."""

import sys

from .guard import Guard
from .server import Server

our_main = None  # boot.py's module, kept alive


def main(name, token, runtime):
    if name == "--zygote":
        from .zygote import serve

        (name, token, runtime), listener, server = serve(int(runtime), token, Server)
    else:
        server, listener = Server(), None
    server.begin(name, runtime)
    guard = Guard(server, name, token, runtime, listener)
    guard.start()
    server.run()
    server.tasks.close()
    server.flush()
    # atexit functions and user threads have their time; the control thread keeps it.
    sys.exit(guard.exit_code)
