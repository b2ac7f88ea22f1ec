import contextlib
import random

import anyio
import pytest

from dxos.errors import DeadlineError, PeerError
from dxos.keys import PublicKey
from dxos.limits import MESSAGE_IDS_REMEMBERED_MAX, MESSAGE_TIMEOUT_S
from dxos.mesh.messenger import Acknowledged, Delivered, GaveUp, Messenger, MessengerMachine, Transmit
from dxos.testing.network import MemoryNetwork
from dxos.wire import to_key
from dxos.wire.proto import keys_pb2, values_pb2

ALICE, BOB, TOPIC = PublicKey(b"a" * 65), PublicKey(b"b" * 65), PublicKey(b"t" * 32)
PAYLOAD = values_pb2.Any(type_url="dxos.test", value=b"hello")


def send(machine: MessengerMachine, now: float = 0.0, message_id: bytes = b"1" * 32) -> Transmit:
    (transmit,) = machine.send(ALICE, BOB, PAYLOAD, message_id=message_id, now=now)
    assert isinstance(transmit, Transmit)
    return transmit


def test_copies_go_out_until_one_is_acknowledged() -> None:
    alice, bob = MessengerMachine(), MessengerMachine()
    copy = send(alice)
    assert alice.tick(0.9) == []
    assert alice.tick(1.0) == [copy]
    answer, delivered = bob.receive(ALICE, BOB, copy.payload)
    assert delivered == Delivered(ALICE, BOB, PAYLOAD)
    assert isinstance(answer, Transmit)
    assert alice.receive(BOB, ALICE, answer.payload) == [Acknowledged(b"1" * 32)]
    assert alice.deadline is None


def test_every_copy_is_acknowledged_and_one_delivered() -> None:
    bob, copy = MessengerMachine(), send(MessengerMachine())
    assert [type(output) for output in bob.receive(ALICE, BOB, copy.payload)] == [Transmit, Delivered]
    assert [type(output) for output in bob.receive(ALICE, BOB, copy.payload)] == [Transmit]


def test_the_pauses_double_and_then_it_gives_up() -> None:
    machine, sent, now = MessengerMachine(), [0.0], 0.0
    send(machine)
    while (deadline := machine.deadline) is not None:
        now = deadline
        for output in machine.tick(now):
            if isinstance(output, GaveUp):
                break
            sent.append(now)
    assert sent == [0.0, 1.0, 3.0, 7.0]
    assert now == MESSAGE_TIMEOUT_S


def test_only_the_recipient_can_acknowledge() -> None:
    alice, bob = MessengerMachine(), MessengerMachine()
    answer = bob.receive(ALICE, BOB, send(alice).payload)[0]
    assert isinstance(answer, Transmit)
    assert alice.receive(PublicKey(b"m" * 65), ALICE, answer.payload) == []
    assert alice.deadline is not None


def test_what_is_no_reliable_message_is_ignored() -> None:
    assert MessengerMachine().receive(ALICE, BOB, PAYLOAD) == []


def test_the_ids_remembered_are_bounded() -> None:
    machine, sender = MessengerMachine(), MessengerMachine()
    first = send(sender, message_id=bytes(32))
    machine.receive(ALICE, BOB, first.payload)
    for number in range(1, MESSAGE_IDS_REMEMBERED_MAX + 1):
        message_id = number.to_bytes(32, "big")
        machine.receive(ALICE, BOB, send(sender, message_id=message_id).payload)
        sender.cancel(message_id)
    assert len(machine.receive(ALICE, BOB, first.payload)) == 2, "forgotten, so delivered again"


def test_bytes_from_the_network_raise_peer_errors_only() -> None:
    source = random.Random(1)
    for name in ("ReliablePayload", "Acknowledgement"):
        for size in range(200):
            payload = values_pb2.Any(type_url=f"dxos.mesh.messaging.{name}", value=source.randbytes(size))
            with contextlib.suppress(PeerError):
                MessengerMachine().receive(ALICE, BOB, payload)


@pytest.mark.anyio
async def test_messages_get_through_a_network_that_loses_half_and_repeats() -> None:
    fabric = MemoryNetwork(seed=1, latency_s=0.2, loss=0.3, repeats=0.3)
    near, far = fabric.signal(), fabric.signal()
    near.join(TOPIC, ALICE)
    far.join(TOPIC, BOB)
    received: list[Delivered] = []
    alice = Messenger(near, random=fabric.random_bytes, on_message=lambda _: None)
    bob = Messenger(far, random=fabric.random_bytes, on_message=received.append)
    async with anyio.create_task_group() as tasks:
        for task in (near.run, far.run, alice.run, bob.run):
            tasks.start_soon(task)
        await anyio.sleep(1)
        sent = [to_key(PublicKey(bytes([number]))) for number in range(20)]
        async with anyio.create_task_group() as sending:
            for message in sent:
                sending.start_soon(alice.send, ALICE, BOB, message)
        tasks.cancel_scope.cancel()
    numbers = sorted(keys_pb2.PublicKey.FromString(message.payload.value).data for message in received)
    assert numbers == sorted(message.data for message in sent)


@pytest.mark.anyio
async def test_a_silent_peer_is_reported_after_ten_seconds() -> None:
    fabric = MemoryNetwork()
    signal = fabric.signal()
    alice = Messenger(signal, random=fabric.random_bytes, on_message=lambda _: None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(signal.run)
        tasks.start_soon(alice.run)
        started = anyio.current_time()
        with pytest.raises(DeadlineError):
            await alice.send(ALICE, BOB, to_key(BOB))
        assert anyio.current_time() - started == pytest.approx(MESSAGE_TIMEOUT_S)
        tasks.cancel_scope.cancel()
