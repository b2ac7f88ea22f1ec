"""The network of one host: swarms joined, connections made and kept, all of it switched off and on at will.

    Network ── Signal (who is there, small messages) ── Messenger (reliable)
       └─ Swarm, one for each topic: a SwarmMachine, and one task for each open session, which runs `on_connection`

Everything that needs the network runs in one task group, renewed each time the network goes online.
"""

import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Self, final

import anyio
import anyio.abc
from msgspec import Struct

from dxos.errors import ClosedError, DxosError, LinkError, PeerError, UsageError
from dxos.keys import PublicKey
from dxos.limits import SWARMS_MAX
from dxos.mesh.messenger import Delivered, Messenger
from dxos.mesh.signal import PeerAvailable, PeerLeft, Signal, SignalEvent, SignalStatus
from dxos.mesh.swarm import Close, ConnectionLimiter, Open, Send, Signalled, State, SwarmMachine, Withdraw
from dxos.mesh.topology import Topology
from dxos.mesh.transport import Link, Payload, Transport
from dxos.wire import decode, type_name
from dxos.wire.proto import swarm_pb2

OnConnection = Callable[[anyio.abc.ByteStream, PublicKey, bool], Awaitable[None]]
_log = logging.getLogger(__name__)
_SWARM_MESSAGE = type_name(swarm_pb2.SwarmMessage)
_STREAM_ERRORS = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


class PeerStatus(Struct, frozen=True):
    """One remote of a swarm as observers see it."""

    remote: PublicKey
    state: str  # KNOWN, WAITING, OFFERING, INVITED, CONNECTING, CONNECTED or CLOSING.
    error: str | None  # Why the latest connection ended; None if it did so in order.


class SwarmStatus(Struct, frozen=True):
    """One swarm as observers see it."""

    topic: PublicKey
    peer: PublicKey  # Our key in it.
    peers: tuple[PeerStatus, ...]  # By key.


class NetworkStatus(Struct, frozen=True):
    """The network as observers see it."""

    online: bool
    signaling: tuple[SignalStatus, ...]
    swarms: tuple[SwarmStatus, ...]


@final
class Network:
    """Swarms over one signalling network and one transport; use it as an `async with` block.

    Args:
        signal: Finds peers; run and stopped by the network.
        transport: Connects them.
        random: Source of random bytes.
    """

    def __init__(
        self, *, signal: Signal, transport: Transport, random: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._signal, self.transport, self.random = signal, transport, random
        self.limiter = ConnectionLimiter(self._wake)
        self.messenger = Messenger(signal, random=random, on_message=self._on_message)
        self._swarms: dict[PublicKey, Swarm] = {}
        self._subscribers: list[Callable[[NetworkStatus], None]] = []
        self._tasks: anyio.abc.TaskGroup | None = None  # While the block runs.
        self._online_tasks: anyio.abc.TaskGroup | None = None  # While online.
        self._offline = anyio.Event()
        self._switching = anyio.Lock()

    def __repr__(self) -> str:
        return f"<Network {'online' if self.online else 'offline'} swarms={len(self._swarms)}>"

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise UsageError("The network is open already.")
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        try:
            await self._tasks.start(self._run)
        except BaseException as error:
            # Nobody else leaves a block that was not entered.
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._tasks is not None
        tasks, self._tasks = self._tasks, None
        tasks.cancel_scope.cancel()
        try:
            return await tasks.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            lone = _lone(group)
            if lone is error:
                return False
        finally:
            self._swarms.clear()
        raise lone  # Outside the handler, so that the group is not its context.

    @property
    def swarms(self) -> Mapping[PublicKey, "Swarm"]:
        """Those joined, by topic."""
        return MappingProxyType(self._swarms)

    @property
    def online(self) -> bool:
        """Whether it is switched on; says nothing about who answers."""
        return self._online_tasks is not None

    @property
    def status(self) -> NetworkStatus:
        """Everything an observer may want to know, now."""
        swarms = tuple(self._swarms[topic].status for topic in sorted(self._swarms))
        return NetworkStatus(self.online, self._signal.statuses, swarms)

    def subscribe(self, callback: Callable[[NetworkStatus], None]) -> Callable[[], None]:
        """Call `callback` after each change; returns what ends this. It must not wait or raise."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def join(self, topic: PublicKey, *, peer: PublicKey, topology: Topology, on_connection: OnConnection) -> "Swarm":
        """Announce ourselves in a swarm, and connect to its peers as they appear.

        Args:
            topic: The swarm.
            peer: Our key in it.
            topology: Whom to connect to; a new object for each swarm.
            on_connection: Is run as a task for each connection, with the stream, the remote's key, which nothing has
                proven yet, and whether we made the offer. The connection ends when it returns, when it raises a
                DxosError or an error of the stream, and is cancelled when the swarm is left; what else it raises is
                a bug, and logged. At most one runs for each remote.

        Raises:
            UsageError: The topic is joined already, or there are too many swarms.
            ClosedError: Outside the network's block.
        """
        if self._tasks is None:
            raise ClosedError("The network is closed.")
        if topic in self._swarms:
            raise UsageError("The topic is joined already.", topic=topic.truncate())
        if len(self._swarms) >= SWARMS_MAX:
            raise UsageError("Too many swarms.", swarms_max=SWARMS_MAX)
        self._signal.join(topic, peer)
        machine = SwarmMachine(topic=topic, local=peer, topology=topology, limiter=self.limiter, random=self.random)
        swarm = self._swarms[topic] = Swarm(self, machine, on_connection)
        if self._online_tasks is not None:
            self._online_tasks.start_soon(swarm.run)
        self.notify()
        return swarm

    async def set_online(self, online: bool) -> None:
        """Switch the network off or on; off, it remembers its swarms.

        Cancelling while switching off leaves that under way; it may be called again.

        Raises:
            ClosedError: Outside the network's block.
        """
        async with self._switching:
            if self._tasks is None:
                raise ClosedError("The network is closed.")
            if not online and self._online_tasks is not None:
                self._online_tasks.cancel_scope.cancel()
            if not online or self._online_tasks is None:
                await self._offline.wait()  # Also of a switching off that was cancelled.
            if online and self._online_tasks is None:
                await self._tasks.start(self._run)

    def spawn(self, task: Callable[[], Coroutine[object, object, None]]) -> bool:
        """Run a task for as long as the network is online; False if it is not."""
        if self._online_tasks is None:
            return False
        self._online_tasks.start_soon(task)
        return True

    def forget(self, swarm: "Swarm") -> None:
        """Take `join` back."""
        if self._swarms.get(swarm.topic) is swarm:
            del self._swarms[swarm.topic]
            self._signal.leave(swarm.topic, swarm.peer)
            self.notify()

    def notify(self) -> None:
        """Tell the observers."""
        if self._subscribers:
            status = self.status
            for callback in tuple(self._subscribers):
                callback(status)

    async def _run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Be online until cancelled."""
        stops = [self._signal.listen(self._on_event), self._signal.subscribe(self.notify)]
        self._offline = anyio.Event()
        try:
            async with anyio.create_task_group() as tasks:
                self._online_tasks = tasks
                try:
                    tasks.start_soon(self.messenger.run)
                    for swarm in self._swarms.values():
                        tasks.start_soon(swarm.run)
                    await tasks.start(self._signal.run)
                    self.notify()
                    task_status.started()
                    await anyio.sleep_forever()
                finally:
                    # Before the group closes: nobody starts anything in it while its tasks are ending.
                    self._online_tasks = None
        finally:
            for stop in stops:
                stop()
            for swarm in self._swarms.values():
                swarm.stop()
            self._offline.set()
            self.notify()

    def _wake(self) -> None:
        for swarm in self._swarms.values():
            swarm.wake()

    def _on_event(self, event: SignalEvent) -> None:
        if isinstance(event, PeerAvailable | PeerLeft) and (swarm := self._swarms.get(event.topic)) is not None:
            swarm.receive_event(event)

    def _on_message(self, message: Delivered) -> None:
        if message.payload.type_url != _SWARM_MESSAGE:
            return
        with suppress(PeerError):  # Nothing proves who wrote it: nobody to close.
            swarm_message = decode(swarm_pb2.SwarmMessage, message.payload.value)
            swarm = self._swarms.get(PublicKey(swarm_message.topic.data))
            if swarm is not None and swarm.peer == message.recipient:
                swarm.receive_message(message.author, swarm_message)


class _Session(Struct):
    """A session in a transport's hands."""

    link: Link
    scope: anyio.CancelScope
    done: anyio.Event


@final
class Swarm:
    """One topic; made by `Network.join`. As an `async with` block it is left at the end."""

    def __init__(self, network: Network, machine: SwarmMachine, on_connection: OnConnection) -> None:
        self._network, self._machine, self._on_connection = network, machine, on_connection
        self._sessions: dict[PublicKey, _Session] = {}  # By remote.
        self._offers: dict[PublicKey, anyio.CancelScope] = {}  # Being sent, by session.
        self._errors: dict[PublicKey, str] = {}
        self._shown: dict[PublicKey, State] = {}
        self._changed = anyio.Event()
        self._scope = anyio.CancelScope()
        self._left = False

    def __repr__(self) -> str:
        return f"<Swarm {self.topic.truncate()} as {self.peer.truncate()} connected={len(self.connected)}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    @property
    def topic(self) -> PublicKey:
        """What names it."""
        return self._machine.topic

    @property
    def peer(self) -> PublicKey:
        """Our key in it."""
        return self._machine.local

    @property
    def peers(self) -> frozenset[PublicKey]:
        """Remotes that are announced, or connected all the same."""
        return self._machine.peers

    @property
    def connected(self) -> frozenset[PublicKey]:
        """Remotes with a connection."""
        return self._machine.connected

    @property
    def status(self) -> SwarmStatus:
        """The swarm as observers see it."""
        peers = (
            PeerStatus(remote, type(state).__name__.upper(), self._errors.get(remote))
            for remote, state in self._machine.states.items()
        )
        return SwarmStatus(self.topic, self.peer, tuple(peers))

    def kick(self, remote: PublicKey) -> None:
        """Drop a remote, and have nothing to do with it until `unbar`."""
        self._machine.bar(remote, anyio.current_time())
        self.wake()

    def unbar(self, remote: PublicKey) -> None:
        """Take `kick` back."""
        self._machine.unbar(remote)
        self.wake()

    def disconnect(self, remote: PublicKey) -> None:
        """Drop a remote's connection; it may be connected again after a pause."""
        self._machine.disconnect(remote, anyio.current_time())
        self.wake()

    async def leave(self) -> None:
        """Leave the swarm and wait for its connections' tasks to end; twice is fine.

        Cancelling leaves it left, with tasks that end by themselves.
        """
        self._left = True
        self._network.forget(self)
        self._scope.cancel()
        self.stop()
        while self._sessions:
            await next(iter(self._sessions.values())).done.wait()

    # --- For the network ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Do what the machine decides, until the swarm is left."""
        with anyio.CancelScope() as self._scope:
            while not self._left:
                self._changed = anyio.Event()  # Renewed before looking, so nothing is missed.
                self._machine.evaluate(anyio.current_time())
                self._act()
                deadline = self._machine.deadline
                with anyio.CancelScope(deadline=math.inf if deadline is None else deadline):
                    await self._changed.wait()

    def wake(self) -> None:
        """Have the machine decide again."""
        self._changed.set()

    def stop(self) -> None:
        """Drop everything, without waiting."""
        self._machine.stop(anyio.current_time())
        self._act()

    def receive_event(self, event: PeerAvailable | PeerLeft) -> None:
        """Somebody came or went."""
        if isinstance(event, PeerAvailable):
            self._machine.peer_available(event.peer, anyio.current_time())
        else:
            self._machine.peer_left(event.peer)
        self.wake()

    def receive_message(self, author: PublicKey, message: swarm_pb2.SwarmMessage) -> None:
        """Somebody sent a message.

        Raises:
            PeerError: It makes no sense.
        """
        self._machine.receive(author, message, anyio.current_time())
        self.wake()

    def _act(self) -> None:
        for action in self._machine.take_actions():
            match action:
                case Send():
                    self._network.spawn(partial(self._send, action))
                case Open(remote, session, initiator):
                    self._open(remote, session, initiator)
                case Close(remote):
                    if (closing := self._sessions.get(remote)) is not None:
                        closing.scope.cancel()
                case Withdraw(session):
                    if (scope := self._offers.get(session)) is not None:
                        scope.cancel()
                case Signalled(remote, _, payload):
                    if (open_session := self._sessions.get(remote)) is not None:
                        open_session.link.deliver_nowait(payload)
        states = self._machine.states
        if states != self._shown:
            self._shown = states
            self._errors = {remote: error for remote, error in self._errors.items() if remote in states}
            self._network.notify()

    async def _send(self, action: Send) -> None:
        is_offer = action.message.data.WhichOneof("payload") == "offer"
        with anyio.CancelScope() as scope:
            if is_offer:
                self._offers[action.session] = scope
            try:
                await self._network.messenger.send(self.peer, action.remote, action.message)
            except LinkError:
                self._machine.undelivered(action.remote, action.session, anyio.current_time())
                self.wake()
            finally:
                if is_offer:
                    del self._offers[action.session]

    def _open(self, remote: PublicKey, session: PublicKey, initiator: bool) -> None:
        link = Link(
            topic=self.topic,
            local=self.peer,
            remote=remote,
            session=session,
            initiator=initiator,
            send=partial(self._signal, remote, session),
        )
        item = self._sessions[remote] = _Session(link, anyio.CancelScope(), anyio.Event())
        if not self._network.spawn(partial(self._run_session, item)):
            del self._sessions[remote]  # Agreed on just as the network went offline.
            self._machine.closed(remote, session, anyio.current_time())

    def _signal(self, remote: PublicKey, session: PublicKey, payload: Payload) -> None:
        self._machine.signal(remote, session, payload)
        self.wake()

    async def _run_session(self, item: _Session) -> None:
        link, error = item.link, None
        try:
            with item.scope:
                async with await self._network.transport.connect(link) as stream:
                    self._machine.opened(link.remote, link.session, anyio.current_time())
                    self.wake()
                    await self._on_connection(stream, link.remote, link.initiator)
        except* DxosError as errors:
            error = str(_lone(errors))
        except* _STREAM_ERRORS:
            error = "The connection was lost."
        except* Exception as bugs:  # noqa: BLE001 - The top of a task: a bug in one connection must not end the others.
            _log.exception("a bug ended the connection with %s", link.remote.truncate(), exc_info=_lone(bugs))
            error = "A bug of this package ended the connection; the log says where."
        finally:
            del self._sessions[link.remote]
            item.done.set()
            self._errors.pop(link.remote, None)
            if error is not None:
                self._errors[link.remote] = error
            self._machine.closed(link.remote, link.session, anyio.current_time())
            self.wake()


def _lone(error: BaseException) -> BaseException:
    """The error itself, if its groups hold no other."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
