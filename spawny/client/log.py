"""The logger `spawny`, without the cost of `logging` where nobody has asked for it.

Attaching to a warm daemon must not pay for `import logging`: until the application (or a start)
has loaded it, there is nobody to hear.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging


def log(level: str, text: str, *args: object, logger: logging.Logger | None = None) -> None:
    """Log at the level of that name, if logging is loaded at all."""
    logging = sys.modules.get("logging")
    if logging is None:
        return
    target = logger or logging.getLogger("spawny")
    getattr(target, level)(text, *args)


def default_logger() -> logging.Logger:
    """The logger `spawny`. It prints to stdout where the application configured no logging."""
    import logging

    class ToStdout(logging.Handler):
        """Whatever `sys.stdout` is at that moment, as long as no other handler takes the record."""

        def emit(self, record: logging.LogRecord) -> None:
            if logging.getLogger().handlers or len(logger.handlers) > 1:
                return  # configured since
            from .channel import show

            show(1, self.format(record) + "\n")

    logger = logging.getLogger("spawny")
    if not logger.hasHandlers():
        logger.addHandler(ToStdout())
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
    return logger
