"""The command `spawny`: what scripts do with daemons, from a terminal."""

from .command import main

__all__ = ["main"]
