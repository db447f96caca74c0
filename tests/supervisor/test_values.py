"""The figures of calls."""

from hypothesis import given
from hypothesis import strategies as st

from spawny.supervisor.values import NO_CALLS, CallFigures

SHARES = (0.5, 0.9, 0.99)


def test_without_calls_there_is_no_time() -> None:
    """Neither 0 nor a guess."""
    assert [NO_CALLS.seconds_of(share) for share in SHARES] == [None, None, None]


def test_shares_of_known_calls() -> None:
    """90 calls of a millisecond, nine of a second, one of a minute; in any order."""
    figures = CallFigures(0, ((24, 1), (-39, 90), (1, 9)))
    assert [f"{figures.seconds_of(share):.2g}" for share in SHARES] == ["0.0011", "0.0011", "1.1"]
    assert f"{figures.seconds_of(1):.2g}" == "59"


@given(st.floats(1e-8, 1e8))
def test_a_time_is_told_within_nine_percent(seconds: float) -> None:
    """Of a call that the kernel counted in the bucket of the exponent of the fourth power."""
    import math

    bucket = math.frexp(seconds**4)[1]
    told = CallFigures(0, ((bucket, 1),)).seconds_of(0.5)
    assert told is not None
    assert 1 / 1.0906 <= told / seconds <= 1.0906
