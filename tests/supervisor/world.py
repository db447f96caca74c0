"""A world for the core: processes, links and clients as plain values, and time that is told.

It performs actions as the real edges do, except that nothing happens by itself: a daemon says hello
when the test says so, and a signal only marks a process as dying.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from spawny import control
from spawny.settings import Settings
from spawny.supervisor import actions, events
from spawny.supervisor.core import Core
from spawny.supervisor.records import Record
from spawny.supervisor.values import Busy, Caller, Identity, Interpreter, ProcessState, Sample

PYTHON = Interpreter("/usr/bin/python3.11", "/usr/bin/python3.11")
OTHER_PYTHON = Interpreter("/opt/3.9/bin/python", "/opt/3.9/bin/python")
SETTINGS = Settings()


def definition(
    name: str = "etl",
    token: str = "t1",
    digest: str = "d1",
    *,
    python_is_default: bool = True,
    if_exists: control.IfExists = "attach",
    restart: control.Restart = "never",
    start_timeout: float = 60.0,
    is_named: bool = True,
) -> control.StartDaemon:
    return control.StartDaemon(
        name=name,
        token=token,
        digest=digest,
        summary=f"script {digest}",
        python="3.11",
        python_is_default=python_is_default,
        caller_python=PYTHON.executable,
        environ={},
        cwd="/",
        sys_path=[],
        if_exists=if_exists,
        restart=restart,
        start_timeout=start_timeout,
        is_named=is_named,
        definition=b"payload",
    )


@dataclass
class Process:
    """One that was spawned, or adopted, and has not ended yet."""

    name: str
    token: str
    identity: Identity
    link: int | None = None
    signals: list[str] = field(default_factory=list)


class World:
    """A core with everything around it."""

    def __init__(self, *, service: bool = False, settings: Settings = SETTINGS) -> None:
        self.now = 1000.0
        self.core = Core(
            settings,
            control.Welcome("1", 1, "python", service),
            log_of=lambda name: f"/logs/{name}.log",
            jitter=lambda: 1.0,
            now=self.now,
        )
        self.settings = settings
        self.processes: dict[Identity, Process] = {}
        self.done: list[actions.Action] = []
        self.replies: dict[Caller, list[control.Message]] = {}
        self.published: list[tuple[str, str]] = []
        self.spawn_problem: str | None = None
        self.free_bytes: int | None = None
        self.sweep_leaves = 0
        self.states: dict[str, ProcessState] = {}
        self.samples: dict[str, Sample] = {}
        self.zygotes: list[int] = []  # the numbers of those that run
        self.zygotes_work = True
        self.zygotes_are_stale = False
        self.zygotes_start_slowly = False  # the test says when they are ready
        self.forks_are_slow = False  # the test says what comes of them
        self._last_pid = 100
        self._last_link = 0
        self._last_request = 0

    # --- events in ------------------------------------------------------------------------------

    def tell(self, event: events.Event) -> list[actions.Action]:
        """Step the core, perform what it says, and return that."""
        todo = self.core.step(event, self.now)
        self.done += todo
        for action in todo:
            for follows in self._perform(action):
                self.tell(follows)
        return todo

    def ask(self, request: control.Message, client: bytes = b"client") -> Caller:
        """Request something, as a new request of `client`."""
        self._last_request += 1
        caller = Caller(client, self._last_request)
        self.replies[caller] = []
        if isinstance(request, control.StartDaemon):
            self.tell(events.StartRequested(caller, request, PYTHON))
        else:
            self.tell(events.Requested(caller, request))
        return caller

    def start(
        self, request: control.StartDaemon, interpreter: Interpreter | None = PYTHON
    ) -> Caller:
        """Request a daemon with an interpreter that was looked up."""
        self._last_request += 1
        caller = Caller(b"client", self._last_request)
        self.replies[caller] = []
        self.tell(events.StartRequested(caller, request, interpreter, "no such python"))
        return caller

    def hello(self, process: Process, state: str = "new", *, token: str | None = None) -> int:
        self._last_link += 1
        process.link = self._last_link
        self.tell(
            events.DaemonHello(
                link=process.link,
                name=process.name,
                token=process.token if token is None else token,
                identity=process.identity,
                interpreter=PYTHON,
                version="cpython 3.11.7",
                state=state,
                clients=0,
                calls=0,
            )
        )
        return process.link

    def pong(self, link: int | None, busy: Busy | None = None, drift: tuple[str, ...] = ()) -> None:
        assert link is not None
        self.tell(events.PongReceived(link, clients=2, calls=7, busy=busy, drift=drift))

    def exit(
        self, process: Process, code: int | None = None, signal_name: str | None = None
    ) -> None:
        """The process ends; the supervisor sees that."""
        del self.processes[process.identity]
        self.tell(events.ProcessExited(process.name, process.identity, code, signal_name))

    def wait(self, seconds: float) -> None:
        """Let time pass, with every deadline on the way told at its time."""
        end = self.now + seconds
        while (due := self.core.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.tell(events.DeadlineReached())
        self.now = end

    def configure(self, *declared: events.Declared, is_first: bool = True) -> None:
        """The configuration at the start."""
        daemons = {each.request.name: each for each in declared}
        self.tell(events.Configured(daemons, is_first))

    def reload(
        self, *declared: events.Declared, settings: Settings = SETTINGS, dry_run: bool = False
    ) -> list[str]:
        """What changes by a configuration of these."""
        self._last_request += 1
        caller = Caller(b"reloader", self._last_request)
        self.replies[caller] = []
        daemons = {each.request.name: each for each in declared}
        self.tell(events.ReloadRequested(caller, dry_run, settings, daemons))
        answer = self.answer(caller)
        assert isinstance(answer, control.Reloaded), answer
        return answer.changes

    def lose_zygote(self, number: int, *, is_unfit: bool = False) -> None:
        """It ends by itself."""
        self.zygotes.remove(number)
        self.tell(events.ZygoteGone(number, "it ended with exit code -9", is_unfit=is_unfit))

    # --- actions out ----------------------------------------------------------------------------

    def _perform(self, action: actions.Action) -> Iterator[events.Event]:
        match action:
            case actions.Reply(caller, message):
                self.replies[caller].append(message)
            case actions.Publish():
                self.published.append((action.kind, action.name))
            case actions.MeasureMemory(name):
                yield events.MemoryMeasured(name, self.free_bytes)
            case actions.SpawnChild(request):
                if self.spawn_problem is not None:
                    yield events.SpawnFailed(request.name, self.spawn_problem)
                else:
                    process = self.process(request.name, request.token)
                    yield events.ChildSpawned(request.name, process.identity, 4096, request.mark)
            case actions.StartZygote(number):
                if self.zygotes_work:
                    self.zygotes.append(number)
                    if not self.zygotes_start_slowly:
                        yield events.ZygoteReady(number, 7, 0.1)
                else:
                    yield events.ZygoteGone(number, "threads run", is_unfit=True)
            case actions.EndZygote(number):
                if number in self.zygotes:
                    self.zygotes.remove(number)
            case actions.ForkDaemon(number, request):
                if self.forks_are_slow or self.zygotes_start_slowly:
                    return
                if number in self.zygotes and not self.zygotes_are_stale:
                    process = self.process(request.name, request.token)
                    yield events.ChildSpawned(
                        request.name, process.identity, 4096, request.mark, number
                    )
                else:
                    is_stale = self.zygotes_are_stale
                    yield events.ForkRefused(request.name, number, "refused", is_stale)
            case actions.SignalDaemon(identity, signal_name):
                if identity in self.processes:
                    self.processes[identity].signals.append(signal_name)
            case actions.SweepSession(name, identity):
                yield events.SessionSwept(name, identity, self.sweep_leaves)
            case actions.SampleHealth(processes):
                names = {name for name, _ in processes} | set(self.states)
                yield events.HealthSampled({name: self._sample(name) for name in names})
            case actions.GlanceAtProcesses():
                yield events.ProcessesSeen(self.states)
            case actions.CloseLink(link):
                for process in self.processes.values():
                    if process.link == link:
                        process.link = None
            case _:
                pass

    # --- what is ------------------------------------------------------------------------------

    def process(self, name: str = "etl", token: str = "t1") -> Process:
        """A new living process."""
        self._last_pid += 1
        process = Process(name, token, Identity("boot", self._last_pid, self._last_pid * 10))
        self.processes[process.identity] = process
        return process

    def only_process(self) -> Process:
        (process,) = self.processes.values()
        return process

    def record(self, name: str = "etl") -> Record:
        return self.core.fleet.records[name]

    def answer(self, caller: Caller) -> control.Message:
        """The one answer to a request."""
        final = [each for each in self.replies[caller] if not isinstance(each, control.Progress)]
        assert len(final) == 1, final
        return final[0]

    def is_answered(self, caller: Caller) -> bool:
        return any(not isinstance(each, control.Progress) for each in self.replies[caller])

    def done_of(self, kind: type[actions.Action]) -> list[actions.Action]:
        return [each for each in self.done if isinstance(each, kind)]

    def status(self, name: str) -> control.DaemonStatus:
        """What a listing says of one daemon, pongs not waited for."""
        caller = self.ask(control.ListDaemons(name))
        self.wait(0.25)
        listing = self.answer(caller)
        assert isinstance(listing, control.Listing), listing
        return listing.daemons[0]

    # --- shortcuts ------------------------------------------------------------------------------

    def _sample(self, name: str) -> Sample:
        return replace(self.samples.get(name, sample()), state=self.states.get(name, "other"))

    def ready(self, request: control.StartDaemon | None = None) -> Process:
        """A daemon that serves."""
        before = set(self.processes)
        self.start(request or definition())
        (identity,) = set(self.processes) - before
        process = self.processes[identity]
        link = self.hello(process)
        self.tell(events.DefinitionLoaded(link))
        return process


def refusal(message: control.Message) -> control.Refused:
    assert isinstance(message, control.Refused), message
    return message


def sample(cpu_percent: float = 0.0) -> Sample:
    return Sample(30_000_000, cpu_percent)
