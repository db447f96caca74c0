"""Whatever happens in whatever order: what holds for the core always."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spawny import control
from spawny.supervisor import actions, events
from spawny.supervisor.lifecycle import ALIVE, State
from spawny.supervisor.values import Busy
from tests.supervisor.world import PYTHON, Process, World, definition, sample

NAMES = st.sampled_from(["a", "b"])

# States that await something which might never come.
AWAITING = {State.STARTING, State.LOADING, State.STOPPING, State.SWEEPING, State.WAITING}


class AnyHistory(RuleBasedStateMachine):
    """Two names, any events; processes behave as they like."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(service=True)
        self.requests = 0

    # --- clients ---

    @rule(
        name=NAMES,
        digest=st.sampled_from(["d1", "d2"]),
        if_exists=st.sampled_from(["attach", "replace", "error"]),
        restart=st.sampled_from(["never", "on-failure", "always"]),
        finds_python=st.integers(0, 9).map(bool),
    )
    def start(self, name, digest, if_exists, restart, finds_python):
        self.requests += 1
        request = definition(
            name, f"t{self.requests}", digest, if_exists=if_exists, restart=restart
        )
        self.world.start(request, PYTHON if finds_python else None)

    @rule(name=NAMES)
    def start_again_with_the_same_token(self, name):
        record = self.world.core.fleet.records.get(name)
        if record is not None:
            self.world.start(record.request)

    @rule(name=NAMES, kind=st.sampled_from(["find", "stop", "restart", "interrupt", "list", "all"]))
    def ask(self, name, kind):
        self.world.ask(
            {
                "find": control.FindDaemon(name),
                "stop": control.StopDaemon(name),
                "restart": control.RestartDaemon(name),
                "interrupt": control.InterruptDaemon(name),
                "list": control.ListDaemons(name),
                "all": control.ListDaemons(),
            }[kind]
        )

    @rule(watches=st.booleans())
    def watch(self, watches):
        self.world.ask(control.WatchEvents() if watches else control.UnwatchEvents(), b"w")

    # --- the world ---

    @rule(fails=st.booleans())
    def let_spawns_fail(self, fails):
        self.world.spawn_problem = "no memory" if fails else None

    @rule(works=st.booleans())
    def let_zygotes_work(self, works):
        self.world.zygotes_work = works

    @rule()
    def lose_zygotes(self):
        for number in list(self.world.zygotes):
            self.world.lose_zygote(number)

    @rule(left=st.integers(0, 2))
    def let_daemons_leave_processes(self, left):
        self.world.sweep_leaves = left

    @rule(name=NAMES)
    def sweep(self, name):
        record = self.world.core.fleet.records.get(name)
        if record is not None and record.identity is not None and record.state not in ALIVE:
            self.world.tell(events.SessionSwept(name, record.identity, 0))

    @rule(seconds=st.sampled_from([0.1, 0.3, 2.0, 6.0, 40.0, 100.0]))
    def wait(self, seconds):
        self.world.wait(seconds)

    # --- processes ---

    def pick(self, data) -> Process:
        return data.draw(st.sampled_from(sorted(self.world.processes.values(), key=repr)))

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data(), state=st.sampled_from(["new", "loading", "ready", "failed"]))
    def hello(self, data, state):
        self.world.hello(self.pick(data), state)

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data(), token=st.sampled_from(["t0", "t1"]))
    def hello_of_an_impostor(self, data, token):
        process = self.pick(data)
        link = process.link
        self.world.hello(process, "ready", token=token)
        process.link = link if process.link is None else process.link

    @precondition(lambda self: self.world.processes)
    @rule(
        data=st.data(),
        kind=st.sampled_from(["loaded", "failed", "ending", "clients", "pong", "busy", "lost"]),
    )
    def report(self, data, kind):
        process = self.pick(data)
        link = process.link
        if link is None:
            return
        if kind == "lost":
            process.link = None
        busy = Busy("f()", 1, 1.0) if kind == "busy" else None
        self.world.tell(
            {
                "loaded": events.DefinitionLoaded(link),
                "failed": events.DefinitionFailed(link, "ValueError: x"),
                "ending": events.EndingAnnounced(link, "idle"),
                "clients": events.ClientsChanged(link, 3),
                "lost": events.LinkLost(link),
            }.get(kind, events.PongReceived(link, 1, 1, busy))
        )

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data(), done=st.booleans(), number=st.integers(1, 5))
    def interrupted(self, data, done, number):
        link = self.pick(data).link
        if link is not None:
            self.world.tell(events.CallInterrupted(link, number, done))

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data(), how=st.sampled_from([(0, None), (1, None), (None, "SIGKILL")]))
    def exit(self, data, how):
        self.world.exit(self.pick(data), *how)

    @rule()
    def look(self):
        self.world.tell(events.HealthSampled({"a": sample(), "b": sample("stopped")}))

    # --- what holds ---

    @invariant()
    def at_most_one_process_per_name(self):
        counts = Counter(process.name for process in self.world.processes.values())
        assert all(count == 1 for count in counts.values()), counts

    @invariant()
    def every_process_has_a_record(self):
        for identity, process in self.world.processes.items():
            record = self.world.record(process.name)
            assert record.identity == identity
            assert record.state in ALIVE

    @invariant()
    def every_record_is_whole(self):
        for record in self.world.core.fleet.records.values():
            assert (record.identity in self.world.processes) == (record.state in ALIVE)
            if record.link is not None:
                assert record.state in ALIVE
                assert self.world.core.fleet.linked(record.link) == record
            if record.state in (State.LOADING, State.READY, State.FAILED):
                # Whoever restarted it waits until it is ready.
                assert all(each.until_ready for each in record.waiters)
                assert record.state is State.LOADING or not record.waiters
            if record.state not in (State.STOPPING, State.SWEEPING):
                assert not record.stoppers
                assert not record.deferred

    @invariant()
    def nobody_is_answered_twice(self):
        for replies in self.world.replies.values():
            assert len([each for each in replies if not isinstance(each, control.Progress)]) <= 1

    @invariant()
    def whatever_is_awaited_has_a_deadline(self):
        for record in self.world.core.fleet.records.values():
            if record.state in AWAITING:
                assert record.deadline is not None, record
        due = self.world.core.next_deadline()
        open_requests = [each for each in self.world.replies if not self.world.is_answered(each)]
        assert due is not None or not open_requests

    def teardown(self):
        """In the end everybody is answered once, and nothing is left."""
        self.world.spawn_problem = None
        self.world.sweep_leaves = 0
        self.world.ask(control.Shutdown())
        for _ in range(3):
            for process in list(self.world.processes.values()):
                self.world.exit(process, signal_name="SIGKILL")
            self.world.wait(10)
        assert not self.world.processes
        assert not self.world.core.fleet.records
        assert len(self.world.done_of(actions.Exit)) == 1
        for caller in self.world.replies:
            self.world.answer(caller)


AnyHistory.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyHistory = AnyHistory.TestCase
