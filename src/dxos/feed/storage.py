"""What a log asks of the place that keeps it, and the simplest such place: memory.

One `LogWrite` is one atomic step: after a crash either all of it is there or nothing of it. That is why a log never
has to scan or repair its storage when it opens: two numbers (`lengths`) and the stored tree say everything.
"""

from dataclasses import dataclass, field
from typing import Protocol, final

from msgspec import Struct

from dxos.feed.merkle import Node


@final
class LogWrite(Struct, frozen=True):
    """One verified or newly written block with what proves it; all of it is stored, or nothing."""

    index: int  # Of the block, from 0.
    data: bytes  # The block itself, up to BLOCK_BYTES_MAX bytes.
    nodes: tuple[Node, ...]  # Tree nodes that are not stored yet.
    signature: bytes | None  # 64 bytes over the tree of `signature_length` blocks; None if that one is stored already.
    signature_length: int  # Blocks that the signature covers; kept under the index `signature_length - 1`.
    contiguous: int  # New count of blocks from 0 on without a gap.
    length: int  # New count of blocks that some stored signature covers: the longest log we know to exist.


class LogStorage(Protocol):
    """Keeps one feed. Calls are synchronous and see what was committed before; errors are StorageErrors."""

    def lengths(self) -> tuple[int, int]:
        """Return `(contiguous, length)` of the last commit, `(0, 0)` for a new feed; must not read the blocks."""

    def has(self, index: int) -> bool:
        """Tell whether the block is stored, without reading it."""

    def block(self, index: int) -> bytes | None:
        """Return the block, or None."""

    def node(self, index: int) -> tuple[bytes, int] | None:
        """Return hash (32 bytes) and size (bytes of all blocks below) of a tree node, or None."""

    def signature(self, index: int) -> bytes | None:
        """Return the 64-byte signature over the tree of `index + 1` blocks, or None."""

    def commit(self, write: LogWrite) -> None:
        """Store all of `write`, or raise and store nothing."""


@final
@dataclass(slots=True)
class MemoryLogStorage:
    """A feed in memory: for tests and for profiles that are not persistent."""

    blocks: dict[int, bytes] = field(default_factory=dict)
    nodes: dict[int, tuple[bytes, int]] = field(default_factory=dict)
    signatures: dict[int, bytes] = field(default_factory=dict)
    _lengths: tuple[int, int] = (0, 0)

    def lengths(self) -> tuple[int, int]:
        """Return `(contiguous, length)`."""
        return self._lengths

    def has(self, index: int) -> bool:
        """Tell whether the block is stored."""
        return index in self.blocks

    def block(self, index: int) -> bytes | None:
        """Return the block, or None."""
        return self.blocks.get(index)

    def node(self, index: int) -> tuple[bytes, int] | None:
        """Return hash and size of a tree node, or None."""
        return self.nodes.get(index)

    def signature(self, index: int) -> bytes | None:
        """Return the signature over `index + 1` blocks, or None."""
        return self.signatures.get(index)

    def commit(self, write: LogWrite) -> None:
        """Store all of `write`."""
        self.blocks[write.index] = write.data
        for node in write.nodes:
            self.nodes[node.index] = (node.hash, node.size)
        if write.signature is not None:
            self.signatures[write.signature_length - 1] = write.signature
        self._lengths = (write.contiguous, write.length)
