"""A world of processes for the machines of `dxos.worker`: kernel, lock files, sockets and descriptors, from one seed.

Every process can be killed, frozen, thawed and closed at any moment. What the kernel does is done here as it does it:
a frozen process keeps its locks and its connections, and gets what came meanwhile, in order, when it is thawed.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from dxos.limits import LEADER_BEAT_S
from dxos.worker import coordinator, election, following, leadership, messages, sessions
from dxos.worker.messages import Failure, Message

VERSION = "0.1.0"
COORDINATOR = "coordinator"


class Process:
    """Something the kernel runs: alive, frozen or dead."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.dead = self.frozen = False
        self.backlog: list[_Event] = []
        self.ends: list[End] = []
        self.ports: list[Port] = []  # Whose client's end this process has.
        self.timer_at = math.inf

    def __repr__(self) -> str:
        return f"<{self.name}{' dead' if self.dead else ' frozen' if self.frozen else ''}>"

    def die(self) -> None:
        """The end, in order or not: the kernel closes everything."""
        if self.dead:
            return
        self.dead = True
        for event in self.backlog:
            event.drop()
        self.backlog.clear()
        for end in list(self.ends):
            end.close()
        for port in list(self.ports):
            port.close_client_end()
        self.released()

    def released(self) -> None:
        """What else falls with the process."""

    def thaw(self) -> None:
        if self.frozen:
            self.frozen = False
            backlog, self.backlog = self.backlog, []
            for event in backlog:
                if self.dead:
                    event.drop()
                elif self.frozen:
                    self.backlog.append(event)
                else:
                    event.run()
                    self.settle()

    def settle(self) -> None:
        """Do what the machines ask for."""

    def due(self) -> float:
        """When the machines want to be called."""
        return math.inf

    def wake(self) -> None:
        """The time has come."""


@dataclass
class _Event:
    process: Process
    run: Callable[[], None]
    drop: Callable[[], None] = lambda: None


class End:
    """One end of a connection."""

    def __init__(self, process: Process, role: str) -> None:
        self.process, self.role, self.closed, self.clear_at = process, role, False, 0.0
        self.peer: End
        self._received: Callable[[Message, Port | None], None] | None = None
        self._ended: Callable[[], None] = lambda: None
        self._early: list[tuple[Message, Port | None]] = []  # Came before it was accepted.
        process.ends.append(self)

    def wire(self, received: Callable[[Message, Port | None], None], ended: Callable[[], None]) -> None:
        self._received, self._ended = received, ended
        for message, port in self._early:
            received(message, port)
        if self.closed:
            ended()

    def send(self, message: Message, port: Port | None = None) -> None:
        if self.closed:
            if port:
                port.close_client_end()
            return
        assert messages.decode(messages.encode(message)) == message
        if port:
            port.move(None)
        self.process.world.say(self.role, self.peer.role, message)
        self._later(lambda: self.peer._receive(message, port), port)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.process.ends.remove(self)
            self._later(self.peer._end, None)

    def _later(self, run: Callable[[], None], port: Port | None) -> None:
        world = self.process.world
        # A connection keeps the order of what goes over it.
        self.clear_at = max(self.clear_at + 1e-9, world.now + world.delay())
        drop = port.close_client_end if port else lambda: None
        world.at(self.clear_at, _Event(self.peer.process, run, drop))

    def _receive(self, message: Message, port: Port | None) -> None:
        if self.closed:
            if port:
                port.close_client_end()
            return
        if port:
            port.move(self.process)
        if self._received:
            self._received(message, port)
        else:
            self._early.append((message, port))

    def _end(self) -> None:
        if not self.closed:
            self.close()
            self._ended()


def connect(one: Process, other: Process, other_role: str) -> tuple[End, End]:
    ends = End(one, one.name), End(other, other_role)
    ends[0].peer, ends[1].peer = ends[1], ends[0]
    return ends


class Port:
    """A session's pair of sockets; the client's end moves from process to process."""

    def __init__(self, worker: Worker, client_id: str, attempt: int) -> None:
        self.worker, self.client_id, self.attempt = worker, client_id, attempt
        self.client_closed = self.worker_closed = False
        self.holder: Process | None = None
        self.user: Client | None = None
        self.worker.world.ports.append(self)
        self.move(worker)

    def __repr__(self) -> str:
        return f"<Port {self.client_id}/{self.attempt} at {self.holder} of {self.worker}>"

    def move(self, holder: Process | None) -> None:
        if self.holder:
            self.holder.ports.remove(self)
        self.holder = holder
        if holder:
            holder.ports.append(self)

    def close_client_end(self) -> None:
        if not self.client_closed:
            self.client_closed = True
            self.move(None)
            self.user = None
            world = self.worker.world
            world.soon(self.worker, lambda: self.worker.port_closed(self))

    def close_worker_end(self) -> None:
        if not self.worker_closed:
            self.worker_closed = True
            if self.user:
                self.worker.world.soon(self.user, self._tell_user)

    def _tell_user(self) -> None:
        if self.user:
            self.user.port_ended(self)


class World:
    """Clock, scheduler and file system."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.slow = False  # Whether connections are slow at times.
        self._heap: list[tuple[float, int, _Event]] = []
        self._numbers = itertools.count(1)
        self.clients: list[Client] = []
        self.workers: list[Worker] = []
        self.ports: list[Port] = []
        # Files.
        self.generations: dict[int, Generation] = {}
        self.coordinator_socket: Reign | None = None
        self.worker_socket: Worker | None = None
        # Storage.
        self.fence = 0
        self.profile_lock: Worker | None = None
        self.writers: dict[int, str] = {}
        self.init_failure: Failure | None = None
        self.host_s = 0.3  # How long a host takes to open at most.
        # What happened, for the invariants.
        self.acted = 0
        self.trace: deque[tuple[float, str, str]] = deque(maxlen=4_000)
        self.said: deque[tuple[str, str, str]] = deque(maxlen=4_000)

    def number(self) -> int:
        return next(self._numbers)

    def delay(self) -> float:
        if self.slow and self.random.random() < 0.02:
            return self.random.uniform(0.0, 1.5)
        return self.random.uniform(0.0001, 0.003)

    def note(self, who: object, what: object) -> None:
        self.trace.append((round(self.now, 4), repr(who), repr(what)))

    def say(self, sender: str, receiver: str, message: Message) -> None:
        """Remember who said what to whom, as a diagram shows it."""
        self.said.append((sender, receiver, messages.name_of(type(message))))

    def at(self, when: float, event: _Event) -> None:
        heapq.heappush(self._heap, (when, self.number(), event))

    def soon(self, process: Process, run: Callable[[], None], delay: float | None = None) -> None:
        self.at(self.now + (self.delay() if delay is None else delay), _Event(process, run))

    def step(self) -> bool:
        if not self._heap:
            return False
        self.now, _, event = heapq.heappop(self._heap)
        process = event.process
        if process.dead:
            event.drop()
        elif process.frozen:
            process.backlog.append(event)
        else:
            event.run()
            process.settle()
            self.schedule(process)
        return True

    def schedule(self, process: Process) -> None:
        due = process.due()
        if process.dead or due == math.inf or due == process.timer_at:
            return
        process.timer_at = due
        self.at(max(due, self.now), _Event(process, lambda: self._wake(process, due)))

    def _wake(self, process: Process, due: float) -> None:
        if process.timer_at == due:
            process.timer_at = math.inf
            process.wake()

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = self.now + seconds
        while not until() and self._heap and self._heap[0][0] <= end:
            self.step()
        if not until():
            self.now = end

    def start(self, *, protocol: int = messages.PROTOCOL, delay: float | None = None) -> Client:
        client = Client(self, f"client-{self.number()}", protocol=protocol)
        self.clients.append(client)
        self.soon(client, client.start, delay)
        return client

    def freeze(self, process: Process) -> None:
        process.frozen = True

    def thaw(self, process: Process) -> None:
        process.thaw()
        process.settle()
        self.schedule(process)

    @property
    def open_clients(self) -> list[Client]:
        return [one for one in self.clients if not one.dead]

    @property
    def leaders(self) -> list[Client]:
        return [one for one in self.open_clients if one.election.state is election.State.LEADING]

    @property
    def live_workers(self) -> list[Worker]:
        return [one for one in self.workers if not one.dead]

    @property
    def newest(self) -> int:
        return max(self.generations, default=0)


@dataclass
class Generation:
    """A leader file."""

    holder: Client | None = None
    written: bool = False
    beat: int = 0


@dataclass
class Reign:
    """One leadership as its driver has it."""

    leadership: leadership.Leadership
    coordinator: coordinator.Coordinator
    links: dict[int, End] = field(default_factory=dict)
    worker_end: End | None = None
    spawned: Worker | None = None
    sessions: dict[messages.Session, list[Port]] = field(default_factory=dict)
    provided: dict[messages.ProvidePort, list[Port]] = field(default_factory=dict)


class Client(Process):
    """An application with its thread: election, following, and while it leads, leadership and coordinator."""

    def __init__(self, world: World, name: str, *, protocol: int = messages.PROTOCOL) -> None:
        super().__init__(world, name)
        self.protocol = protocol
        self.election = election.Election()
        self.following = following.Following(name, pid=1, version=VERSION, protocol=protocol)
        self.reign: Reign | None = None
        self.link: End | None = None
        self.received: dict[messages.ProvidePort, list[Port]] = {}
        self.session: Port | None = None
        self.rejected: Failure | None = None
        self.reports: list[Failure] = []
        self.warnings: list[Failure] = []
        self.held: set[int] = set()
        self.closing = False
        self.tick_at = math.inf
        self.led: list[int] = []
        self.ports_seen: list[int] = []  # Attempts of the sessions it had.

    # --- The application

    def start(self) -> None:
        self.election.start(self.world.now)
        self.following.start(self.world.now)
        self.tick_at = self.world.now + LEADER_BEAT_S

    def close(self) -> None:
        if not self.dead and not self.closing:
            self.world.soon(self, self._close, 0.0)

    def _close(self) -> None:
        self.closing = True
        self.following.close()
        self.election.close()

    def released(self) -> None:
        for generation in self.world.generations.values():
            if generation.holder is self:
                generation.holder = None

    # --- The lock files, as `dxos.worker.lockfile` has them

    def _try_lock(self) -> int | None:
        files = self.world.generations
        while True:
            newest = self.world.newest
            if not newest or (files[newest].holder is None and files[newest].written):
                files[newest + 1] = Generation()
                continue
            if files[newest].holder is not None:
                return None
            files[newest].holder, files[newest].written = self, True
            self.held.add(newest)
            for older in [one for one in files if one < newest]:
                del files[older]
            return newest

    def _release(self) -> None:
        for number in self.held:
            if number in self.world.generations:
                self.world.generations[number].holder = None
        self.held.clear()

    # --- The driver

    def due(self) -> float:
        times: list[float | None] = [self.tick_at, self.following.next_timer()]
        if self.reign:
            times += [self.reign.leadership.next_timer(), self.reign.coordinator.next_timer()]
        return min(one for one in times if one is not None)

    def wake(self) -> None:
        now, world = self.world.now, self.world
        if now >= self.tick_at:
            self.tick_at = now + LEADER_BEAT_S
            newest = world.newest
            self.election.tick(now, newest, world.generations[newest].beat if newest else 0)
            self.following.observe(newest, now)
        self.following.handle_timer(now)
        if self.reign:
            self.reign.leadership.handle_timer(now)
            self.reign.coordinator.handle_timer(now)

    def settle(self) -> None:
        while not self.dead:
            if self.election.actions:
                self._elect(self.election.actions.popleft())
            elif self.reign and self.reign.leadership.actions:
                self.election.observe(self.world.newest, self.world.now)
                if not self.election.actions:
                    self._lead(self.reign, self.reign.leadership.actions.popleft())
            elif self.reign and self.reign.coordinator.actions:
                self._coordinate(self.reign, self.reign.coordinator.actions.popleft())
            elif self.following.actions:
                self._follow(self.following.actions.popleft())
            else:
                break
        if self.closing and not self.reign and not self.dead:
            self.die()

    def _elect(self, action: election.Action) -> None:
        world, now = self.world, self.world.now
        world.note(self, action)
        match action:
            case election.TryLock():
                world.soon(self, self._tried)
            case election.StealLock(frozen):
                if world.newest <= frozen:
                    world.generations[frozen + 1] = Generation()
                world.soon(self, self._tried)
            case election.Lead(leadership_id):
                assert self.reign is None, "the leadership before is over"
                self.led.append(leadership_id)
                self.reign = Reign(
                    leadership.Leadership(leadership_id, client_id=self.name, config="{}"),
                    coordinator.Coordinator(leadership_id, pid=1, version=VERSION, protocol=self.protocol),
                )
                world.coordinator_socket = self.reign
                self.reign.leadership.start()
                self.following.nudge(now)
            case election.Beat(leadership_id):
                assert leadership_id == world.newest, "only the newest leader acts"
                world.generations[leadership_id].beat += 1
                if world.coordinator_socket is None:
                    world.coordinator_socket = self.reign
            case election.StepDown(terminate=terminate):
                if self.reign:
                    self.reign.leadership.close(now, terminate=terminate)
                else:
                    self._release()
            case election.ReportFailure(failure):
                self.reports.append(failure)
                self.following.persistent_failure(failure)

    def _tried(self) -> None:
        found = self._try_lock()
        if found is None:
            self.election.lock_busy(self.world.now)
        else:
            self.election.lock_acquired(found, self.world.now)

    def _lead(self, reign: Reign, action: leadership.Action) -> None:
        world, now, machine = self.world, self.world.now, reign.leadership
        world.note(self, action)
        if isinstance(action, leadership.Spawn | leadership.Adopt | leadership.Renew | leadership.ToWorker):
            leads = self.election.state is election.State.LEADING
            assert not leads or machine.leadership_id == world.newest, "only the newest leader acts"
            if leads:
                assert machine.leadership_id >= world.acted, "no leader acts after a newer one"
                world.acted = machine.leadership_id
        match action:
            case leadership.Adopt():
                worker = world.worker_socket
                if worker is None or worker.dead:
                    self._tell(reign, machine.worker_absent)
                else:
                    reign.worker_end, theirs = connect(self, worker, worker.name)
                    self._wire_worker(reign)
                    world.soon(worker, partial(worker.accept, theirs))
                    machine.worker_linked(now)
            case leadership.Spawn():
                worker = Worker(world, f"worker-{world.number()}")
                world.workers.append(worker)
                ours, theirs = connect(self, worker, worker.name)
                reign.worker_end, reign.spawned = ours, worker
                self._wire_worker(reign)
                world.soon(worker, lambda: worker.begin(theirs), world.random.uniform(0.01, 0.2))
                machine.worker_linked(now)
            case leadership.Kill():
                end = reign.worker_end
                assert end is not None
                victim = end.peer.process
                end.close()
                reign.worker_end = None
                victim.die()
                self._tell(reign, machine.worker_gone)
            case leadership.DropWorker():
                if reign.worker_end:
                    reign.worker_end.close()
                    reign.worker_end = None
            case leadership.Renew():
                self._release()
                found = self._try_lock()
                if found is None:
                    machine.lost()
                else:
                    self.led.append(found)
                    self.election.renewed(found, now)
                    reign.coordinator.renewed(found)
                    machine.renewed(found, now)
            case leadership.ToWorker(message):
                if reign.worker_end:
                    reign.worker_end.send(message)
            case leadership.ToClients(message):
                if isinstance(message, messages.ProvidePort):
                    session = messages.Session(message.client_id, message.attempt)
                    reign.provided.setdefault(message, []).append(reign.sessions[session].pop())
                if isinstance(message, messages.NewLeader):
                    self.election.leadership_ready()
                world.say(self.name, COORDINATOR, message)
                reign.coordinator.relay(message)
            case leadership.Discard(session):
                reign.sessions[session].pop().close_client_end()
            case leadership.Deposed():
                self.election.deposed(now)
            case leadership.Failed(failure):
                self.election.leadership_failed(failure, now, world.random.random())
            case leadership.Closed():
                reign.coordinator.close()
                while reign.coordinator.actions:
                    self._coordinate(reign, reign.coordinator.actions.popleft())
                if world.coordinator_socket is reign:
                    world.coordinator_socket = None
                self.reign = None
                self._release()

    def _tell(self, reign: Reign, what: Callable[[float], None]) -> None:
        def tell() -> None:
            if self.reign is reign:
                what(self.world.now)

        self.world.soon(self, tell)

    def _wire_worker(self, reign: Reign) -> None:
        end = reign.worker_end
        assert end is not None

        def received(message: Message, port: Port | None) -> None:
            if self.reign is not reign or reign.worker_end is not end:
                if port:
                    port.close_client_end()
                return
            if port:
                assert isinstance(message, messages.Session)
                reign.sessions.setdefault(message, []).append(port)
            self.world.note(self, message)
            reign.leadership.receive(message, self.world.now)

        def ended() -> None:
            if self.reign is reign and reign.worker_end is end:
                reign.worker_end = None
                reign.leadership.worker_gone(self.world.now)

        end.wire(received, ended)

    def _coordinate(self, reign: Reign, action: coordinator.Action) -> None:
        match action:
            case coordinator.Send(link, message):
                port = reign.provided[message].pop() if isinstance(message, messages.ProvidePort) else None
                if link in reign.links:
                    reign.links[link].send(message, port)
                elif port:
                    port.close_client_end()
            case coordinator.CloseLink(link):
                if link in reign.links:
                    reign.links.pop(link).close()
            case coordinator.ToLeader(request):
                self.world.say(COORDINATOR, self.name, request)
                reign.leadership.request(request)
            case coordinator.ClientLeft(client_id):
                reign.leadership.client_left(client_id)
            case coordinator.AskedToHandOver():
                self.election.hand_over(self.world.now)
            case coordinator.Discard(port_message):
                reign.provided[port_message].pop().close_client_end()

    def accept(self, reign: Reign, end: End) -> None:
        """Somebody connected to the coordinator."""
        if self.reign is not reign:
            end.close()
            return
        link = self.world.number()
        reign.links[link] = end

        def received(message: Message, port: Port | None) -> None:
            reign.coordinator.receive(link, message, self.world.now)

        def ended() -> None:
            if reign.links.pop(link, None):
                reign.coordinator.link_ended(link)

        reign.coordinator.linked(link, self.world.now)
        end.wire(received, ended)

    def _follow(self, action: following.Action) -> None:
        world, now = self.world, self.world.now
        world.note(self, action)
        match action:
            case following.OpenLink():
                self._open_link()
            case following.CloseLink():
                if self.link:
                    self.link.close()
                    self.link = None
            case following.Send(message):
                if self.link:
                    self.link.send(message)
            case following.Connected(port_message):
                port = self.received[port_message].pop()
                assert self.session is None, "one session at a time"
                self.session, port.user = port, self
                self.ports_seen.append(port.attempt)
                self.election.connected()
                if port.worker_closed:
                    world.soon(self, port._tell_user)
            case following.Discard(port_message):
                self.received[port_message].pop().close_client_end()
            case following.ClosePort():
                if self.session:
                    self.session.close_client_end()
                    self.session = None
            case following.Warned(failure):
                self.warnings.append(failure)
            case following.Rejected(failure):
                self.rejected = failure
                self._close()
        assert now == world.now

    def _open_link(self) -> None:
        reign = self.world.coordinator_socket
        owner = next((one for one in self.world.open_clients if one.reign is reign), None) if reign else None
        if reign is None or owner is None:
            self.world.soon(self, lambda: self.following.link_ended(self.world.now))
            return
        end, theirs = connect(self, owner, COORDINATOR)
        self.link = end

        def received(message: Message, port: Port | None) -> None:
            if self.link is not end:
                if port:
                    port.close_client_end()
                return
            if port:
                assert isinstance(message, messages.ProvidePort)
                self.received.setdefault(message, []).append(port)
            if isinstance(message, messages.Refused):
                self.election.coordinator_failed()
            elif isinstance(message, messages.Welcome):
                self.election.coordinator_greeted()
            self.following.receive(message, self.world.now)

        def ended() -> None:
            if self.link is end:
                self.link = None
                self.following.link_ended(self.world.now)
                self.election.link_ended(self.world.now)

        end.wire(received, ended)
        self.world.soon(owner, lambda: owner.accept(reign, theirs))
        self.following.link_opened(self.world.now)

    def port_ended(self, port: Port) -> None:
        if self.session is port:
            self.session = None
            port.close_client_end()
            self.election.disconnected()
            self.following.port_ended(port.attempt, self.world.now)


class Worker(Process):
    """A worker: sessions, a host that takes its time, and the profile's lock."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.sessions = sessions.Sessions(name, pid=1, version=VERSION, liveness_key=f"alive.{name}")
        self.links: dict[int, End] = {}
        self.served: dict[tuple[str, int], Port] = {}
        self.write_id = 0

    def begin(self, end: End) -> None:
        self.world.worker_socket = self
        self.accept(end)

    def accept(self, end: End) -> None:
        link = self.world.number()
        self.links[link] = end

        def received(message: Message, port: Port | None) -> None:
            self.sessions.receive(link, message, self.world.now)

        def ended() -> None:
            self.links.pop(link, None)
            self.sessions.link_ended(link, self.world.now)

        self.sessions.linked(link)
        end.wire(received, ended)

    def released(self) -> None:
        if self.world.profile_lock is self:
            self.world.profile_lock = None
        if self.world.worker_socket is self:
            self.world.worker_socket = None
        for port in list(self.served.values()):
            port.close_worker_end()
        self.served.clear()

    def due(self) -> float:
        found = self.sessions.next_timer()
        return math.inf if found is None else found

    def wake(self) -> None:
        self.sessions.handle_timer(self.world.now)

    def settle(self) -> None:
        while self.sessions.actions and not self.dead:
            self._do(self.sessions.actions.popleft())

    def _do(self, action: sessions.Action) -> None:
        world = self.world
        world.note(self, action)
        match action:
            case sessions.Send(link, message):
                port = None
                if isinstance(message, messages.Session):
                    port = self.served[message.client_id, message.attempt]
                if link in self.links:
                    self.links[link].send(message, port)
                elif port:
                    port.close_client_end()
            case sessions.CloseLink(link):
                if link in self.links:
                    self.links.pop(link).close()
            case sessions.StartHost(init):
                self._start_host(init)
            case sessions.Promote(leadership_id):
                assert leadership_id > self.write_id
                self.write_id = leadership_id
                if world.profile_lock is self:
                    self.write()
            case sessions.OpenSession(client_id, attempt):
                world.soon(self, lambda: self._open_session(client_id, attempt))
            case sessions.CloseSession(client_id, attempt):
                port = self.served.pop((client_id, attempt), None)
                if port:
                    port.close_worker_end()
                    if port.holder is self:
                        port.close_client_end()
            case sessions.End():
                assert not self.served, "sessions end before their worker"
                self.sessions.ended()
                self.die()

    def _start_host(self, init: messages.Init) -> None:
        self.write_id = max(self.write_id, init.leadership_id)
        self.world.soon(self, self._try_profile, self.world.random.uniform(0.01, self.world.host_s))

    def _try_profile(self) -> None:
        world = self.world
        if world.profile_lock is not None:
            world.soon(self, self._try_profile, 0.05)  # An older worker is about to end.
            return
        if world.init_failure:
            self.sessions.init_failed(world.init_failure)
            return
        world.profile_lock = self
        if self.write():
            self.sessions.initialised(world.now)

    def write(self) -> bool:
        """Whatever is written, is written with the id of a leader that nobody follows yet."""
        world = self.world
        assert world.profile_lock is self
        if self.write_id < world.fence:
            self.sessions.fenced()
            return False
        world.fence = self.write_id
        assert world.writers.setdefault(self.write_id, self.name) == self.name, "one worker writes with an id"
        return True

    def _open_session(self, client_id: str, attempt: int) -> None:
        if self.sessions.clients.get(client_id) == attempt and (client_id, attempt) not in self.served:
            self.served[client_id, attempt] = Port(self, client_id, attempt)
        self.sessions.session_opened(client_id, attempt)

    def port_closed(self, port: Port) -> None:
        if self.served.get((port.client_id, port.attempt)) is port:
            del self.served[port.client_id, port.attempt]
            port.close_worker_end()
            self.sessions.session_ended(port.client_id, port.attempt)
