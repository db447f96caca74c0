"""What tests of zygotes have in common: daemons that are forked, and how to know it."""

from contextlib import suppress
from typing import Any

import spawny
from spawny.control import ZygoteStatus


def warm(python: str, preload: tuple[str, ...] = ()) -> ZygoteStatus:
    """The one zygote of this kind, once daemons are forked from it."""
    supervisor = spawny.connect()
    while True:
        proxy = spawny.run_script("x = 1", python, preload=preload, name="warming")
        is_forked = "forked" in supervisor.why("warming").why
        del proxy
        supervisor.stop("warming")
        found = [each for each in supervisor.zygotes() if each.preload == list(preload)]
        if is_forked or (found and found[0].state == "unfit"):
            return found[0]


def is_forked(name: str) -> bool:
    return "forked from a zygote" in spawny.connect().why(name).why


class named:
    """A daemon of a name, for as long as that."""

    def __init__(self, name: str, python: str, preload: tuple[str, ...], text: str) -> None:
        self._name = name
        self._proxy = spawny.run_script(text, python, name=name, preload=preload)

    def __enter__(self) -> Any:
        return self._proxy

    def __exit__(self, *exc_info: object) -> None:
        with suppress(spawny.DaemonNotFound):  # it has died
            spawny.connect().stop(self._name)
