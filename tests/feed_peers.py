"""Writers, readers and links for the tests of feeds."""

from collections.abc import Iterable

from dxos.feed.log import Log
from dxos.feed.replication import Event, Replication
from dxos.feed.storage import MemoryLogStorage
from dxos.keys import PublicKey, SigningKey


class OneKeySigner:
    """A signer that holds one key."""

    def __init__(self) -> None:
        self.key = SigningKey.generate()

    def sign(self, key: PublicKey, message: bytes) -> bytes:
        assert key == self.key.public_key
        return self.key.sign(message)


SIGNER = OneKeySigner()


def make_log(blocks: Iterable[bytes] = (), *, signer: OneKeySigner = SIGNER) -> Log:
    """A log in memory, its blocks written."""
    log = Log(signer.key.public_key, MemoryLogStorage())
    for block in blocks:
        log.append(block, signer)
    return log


def numbered(count: int, *, start: int = 0) -> list[bytes]:
    return [b"block %d" % number for number in range(start, start + count)]


def contents(log: Log) -> list[bytes]:
    return [log.read(index) for index in range(log.contiguous)]


def send_all(source: Replication) -> bytes:
    """Everything a machine has to send."""
    sent = bytearray()
    while data := source.data_to_send():
        sent += data
    return bytes(sent)


class Link:
    """Two machines joined by a list; each event is kept."""

    def __init__(self, alice: Replication, bob: Replication) -> None:
        self.alice, self.bob = alice, bob
        self.alice_events: list[Event] = []
        self.bob_events: list[Event] = []

    def settle(self, *, now: float = 0.0) -> None:
        """Carry bytes until neither side has more to say."""
        for _ in range(10_000):
            to_bob, to_alice = self.alice.data_to_send(), self.bob.data_to_send()
            if not to_bob and not to_alice:
                return
            if to_bob:
                self.bob_events += self.bob.receive(to_bob, now)
            if to_alice:
                self.alice_events += self.alice.receive(to_alice, now)
        raise AssertionError("the machines never stop talking")


def link(alice: Log, bob: Log, *, now: float = 0.0) -> Link:
    """Join two logs of one feed, both ways, and settle."""
    joined = Link(Replication(alice, now=now), Replication(bob, now=now))
    joined.settle(now=now)
    return joined
