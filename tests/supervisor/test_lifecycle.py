"""The table of states."""

from itertools import product

import pytest

from spawny.supervisor.lifecycle import ALIVE, TABLE, Input, State, advance, diagram


@pytest.mark.parametrize(("state", "happened"), [*product(State, Input)])
def test_every_input_is_decided_in_every_state(state: State, happened: Input) -> None:
    """There is no pair that the table leaves open."""
    assert isinstance(advance(state, happened), State)


@pytest.mark.parametrize("state", State)
def test_every_state_is_reached_and_left(state: State) -> None:
    """No state is a dead end, and none is there for nothing."""
    arrows = [(one, two) for one, row in TABLE.items() for two in row.values() if one is not two]
    assert any(one is state for one, _ in arrows)
    assert any(two is state for _, two in arrows)


@pytest.mark.parametrize("state", sorted(ALIVE))
def test_an_exit_ends_every_life(state: State) -> None:
    """Wherever a process exists, its end leads to sweeping up after it."""
    assert advance(state, Input.EXIT) is State.SWEEPING


@pytest.mark.parametrize("state", sorted(set(State) - ALIVE))
def test_a_process_comes_only_by_a_start(state: State) -> None:
    """Without a process, nothing but a start leads to a state with one."""
    leads = {happened for happened, following in TABLE[state].items() if following in ALIVE}
    assert leads <= {Input.START}


@pytest.mark.parametrize("state", sorted(ALIVE))
def test_a_process_is_never_started_twice(state: State) -> None:
    """A start where a process exists changes nothing."""
    assert advance(state, Input.START) is state


def test_the_diagram_shows_every_arrow() -> None:
    """The docs' diagram is drawn from the table and leaves nothing out."""
    text = diagram()
    assert text.startswith("stateDiagram-v2\n    [*] --> starting\n")
    for state, row in TABLE.items():
        for happened, following in row.items():
            arrow = f"    {state.value} --> {following.value}: "
            lines = [line for line in text.splitlines() if line.startswith(arrow)]
            if state is following:
                assert not lines
            else:
                (line,) = lines
                assert happened.value in line.removeprefix(arrow).split(" / ")
