"""The link to the supervisor, where it cannot be had at once."""

import os
import resource
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from spawny.kernel.phone import LINK_RETRY_SECONDS, Phone


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_NOFILE"), reason="has no such limit")
def test_without_a_descriptor_it_rings_again_later(tmp_path: Path) -> None:
    """What it raises would end the control thread, and the daemon would answer nobody for good."""
    guard = SimpleNamespace(server=None, look_after_socket=lambda: None)
    phone = Phone(guard, str(tmp_path / "link.sock"), "etl", "token", os.getpid())
    next_one = os.dup(0)
    os.close(next_one)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, before[1]))
    try:
        phone.connect()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert phone.connection is None
    assert phone.ring_at == pytest.approx(
        time.monotonic() + LINK_RETRY_SECONDS, abs=LINK_RETRY_SECONDS
    )
