"""Authentication: nothing flows before it, no answer serves twice, and nobody passes for another device."""

import anyio
import pytest

from dxos.aio import Changes
from dxos.errors import DecodeError, ProofError
from dxos.halo.auth import verify_auth
from dxos.keys import PublicKey
from dxos.limits import AUTH_TIMEOUT_S
from dxos.mesh.connection import Connection
from dxos.mesh.memory import memory_links
from dxos.spaces.authentication import Authentication
from dxos.testing.peers import Host, seeded_random, simulated_hosts, virtual_ms

pytestmark = pytest.mark.anyio


class _Side:
    """One end of a connection on which only authentication is spoken."""

    def __init__(self, host: Host, remote_key: PublicKey, *, initiator: bool) -> None:
        self.host, self.remote_key, self.initiator = host, remote_key, initiator
        self.members: set[PublicKey] = set()
        self.changes = Changes()
        self.proven: list[tuple[PublicKey, PublicKey]] = []
        self.answers: list[bytes] = []
        self.replay: bytes | None = None
        self.connection: Connection | None = None

    def prove(self, nonce: bytes) -> bytes:
        if self.replay is not None:
            return self.replay
        self.answers.append(self.host.peer.identity.required.prove(nonce, now_ms=virtual_ms()))
        return self.answers[-1]

    async def run(self, stream: anyio.abc.ByteStream) -> None:
        self.connection = Connection(
            stream,
            local_key=self.host.device_key,
            remote_key=self.remote_key,
            initiator=self.initiator,
            now_ms=virtual_ms,
        )
        self.connection.add_extension(
            Authentication(
                prove=self.prove,
                is_member=self.members.__contains__,
                changes=self.changes,
                authenticated=lambda identity, device: self.proven.append((identity, device)),
                random=seeded_random(self.initiator + 1),
            )
        )
        await self.connection.run()


async def _connect(left: _Side, right: _Side, *, seconds: float) -> None:
    one, other = memory_links()
    with anyio.move_on_after(seconds):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(left.run, one)
            tasks.start_soon(right.run, other)


async def test_two_members_prove_their_devices_to_each_other() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        left = _Side(alice, bob.device_key, initiator=True)
        right = _Side(bob, alice.device_key, initiator=False)
        left.members = right.members = {alice.identity_key, bob.identity_key}
        await _connect(left, right, seconds=5)
        assert left.proven == [(bob.identity_key, bob.device_key)]
        assert right.proven == [(alice.identity_key, alice.device_key)]


async def test_a_verifier_waits_for_the_member_to_become_known() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        left = _Side(alice, bob.device_key, initiator=True)
        right = _Side(bob, alice.device_key, initiator=False)
        right.members = {alice.identity_key}

        async def admit_late() -> None:
            await anyio.sleep(AUTH_TIMEOUT_S - 1)
            assert left.proven == []
            left.members.add(bob.identity_key)
            left.changes.notify()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(admit_late)
            await _connect(left, right, seconds=AUTH_TIMEOUT_S + 5)
        assert left.proven == [(bob.identity_key, bob.device_key)]


async def test_a_stranger_is_thrown_out() -> None:
    async with simulated_hosts("alice", "mallory") as (alice, mallory):
        left = _Side(alice, mallory.device_key, initiator=True)
        right = _Side(mallory, alice.device_key, initiator=False)
        right.members = {alice.identity_key}
        await _connect(left, right, seconds=AUTH_TIMEOUT_S + 5)
        assert left.proven == []
        assert left.connection is not None
        assert isinstance(left.connection.error, ProofError)


async def test_a_member_cannot_appear_as_another_device() -> None:
    async with simulated_hosts("alice", "bob", "mallory") as (alice, bob, mallory):
        left = _Side(alice, bob.device_key, initiator=True)  # As signalling told it.
        right = _Side(mallory, alice.device_key, initiator=False)
        left.members = right.members = {one.identity_key for one in (alice, bob, mallory)}
        await _connect(left, right, seconds=5)
        assert left.proven == []
        assert left.connection is not None
        assert isinstance(left.connection.error, ProofError)


async def test_an_answer_does_not_serve_a_second_time_nor_another_verifier() -> None:
    async with simulated_hosts("alice", "bob", "mallory") as (alice, bob, mallory):
        members = {one.identity_key for one in (alice, bob)}
        left = _Side(alice, bob.device_key, initiator=True)
        right = _Side(bob, alice.device_key, initiator=False)
        left.members = right.members = members
        await _connect(left, right, seconds=5)
        (answer,) = right.answers
        again = _Side(alice, bob.device_key, initiator=False)  # Another connection has another challenge.
        thief = _Side(mallory, alice.device_key, initiator=True)
        again.members = thief.members = members
        thief.replay = answer
        await _connect(again, thief, seconds=5)
        assert again.proven == []
        assert again.connection is not None
        assert isinstance(again.connection.error, ProofError)


async def test_other_credentials_are_no_answers() -> None:
    async with simulated_hosts("alice") as (alice,):
        nonce = bytes(range(32))
        identity = alice.peer.identity.required
        for untrusted in (identity.chain.SerializeToString(), identity.present([], nonce, now_ms=1), b"", b"\xff" * 9):
            with pytest.raises((ProofError, DecodeError)):
                verify_auth(untrusted, nonce)
