"""What a zygote's imports have done that the beginning of a daemon would undo, or miss.

They print, log, and set handlers before there is a daemon. It is done again in each, at the time
when a plain start would import the modules.
"""

import os
import signal

from . import output
from .modules import Modules

# So much of what they print is kept.
OUTPUT_BYTES = 1024 * 1024


class Preloaded:
    """Stands in for the server, for which the streams print, until there is one."""

    def __init__(self):
        self.modules = Modules()
        self.calls = self  # for the streams, which hold interrupts back while they write
        self.streams = output.install(self)
        self._said = []
        self._said_bytes = 0
        self._handler = None

    def interrupts_held(self):
        return self

    def __enter__(self):
        pass

    def __exit__(self, *exc_info):
        pass

    def check_interrupt(self):
        pass

    def forward(self, stream, data):
        if self._said_bytes < OUTPUT_BYTES:
            self._said_bytes += len(data)
            self._said.append((stream, data))

    def complete(self):
        """Everything is imported."""
        for stream in self.streams:
            stream.flush()
        handler = signal.getsignal(signal.SIGINT)
        self._handler = None if handler is signal.default_int_handler else handler

    def replay(self, server):
        """In a daemon, when a plain start would import them."""
        for stream, data in self._said:
            try:
                os.write(stream, data)
            except OSError:
                pass  # the disk is full
            server.forward(stream, data)
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
