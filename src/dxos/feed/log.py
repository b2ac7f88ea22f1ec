"""`Log`: an append-only list of blocks, signed by one writer and verified by everyone else.

Invariants
1. Nothing is stored before a signature by the feed's key covers it.
2. A node of the tree never changes: a proof that contradicts a stored node shows that the writer signed two histories,
   and is refused although its signature is good.
3. Blocks 0 to `contiguous - 1` are stored; some stored signature covers `length` blocks; `contiguous <= length`.
4. Opening reads two numbers; appending, proving and verifying read O(log n) nodes.

One `Log` object for each storage: it keeps the two numbers and the roots in memory, so after a rolled back transaction
of the storage a new `Log` must be opened over it.
"""

from collections.abc import Sequence
from typing import final

from dxos.errors import CorruptionError, LimitError, ProofError
from dxos.feed import merkle
from dxos.feed.merkle import Branch, Node, Proof
from dxos.feed.storage import LogStorage, LogWrite
from dxos.keys import PublicKey, Signer, verify
from dxos.limits import BLOCK_BYTES_MAX, FEED_BLOCKS_MAX


@final
class Log:
    """One feed: read by everyone, appended to by whoever holds the private half of its key.

    Args:
        key: The feed's P-256 public key, 65 bytes.
        storage: Where the feed is kept; must not be written to by anybody else while this object is in use.
    """

    __slots__ = ("_contiguous", "_length", "_roots", "_storage", "_verified", "key")

    def __init__(self, key: PublicKey, storage: LogStorage) -> None:
        self.key = key
        self._storage = storage
        self._contiguous, self._length = storage.lengths()
        self._roots: tuple[Node, ...] | None = None  # Of `contiguous` blocks; read when first needed.
        self._verified: tuple[bytes, bytes] | None = None  # Last message and signature found to be good.

    @property
    def length(self) -> int:
        """Blocks the log is known to have, stored here or not."""
        return self._length

    @property
    def contiguous(self) -> int:
        """Blocks stored here from 0 on without a gap."""
        return self._contiguous

    def refresh(self) -> None:
        """Look at the storage again: a transaction around an `append` has been undone."""
        self._contiguous, self._length = self._storage.lengths()
        self._roots = self._verified = None

    def has(self, index: int) -> bool:
        """Tell whether a block is stored here."""
        return 0 <= index < self._contiguous or (index < self._length and index >= 0 and self._storage.has(index))

    def read(self, index: int) -> bytes:
        """Return a block.

        Raises:
            IndexError: The block is not stored here; ask `has` or `contiguous` first.
            CorruptionError: It was, and is gone.
        """
        data = self._storage.block(index) if self.has(index) else None
        if data is None:
            if 0 <= index < self._contiguous:
                raise CorruptionError("A block of a feed is missing.", feed=self.key.truncate(), index=index)
            raise IndexError(index)
        return data

    def append(self, data: bytes, signer: Signer) -> int:
        """Add a block at the end.

        Args:
            data: Up to BLOCK_BYTES_MAX bytes.
            signer: Holds the private half of `key`.

        Returns:
            The block's index.

        Raises:
            ValueError: The block is too large, or the log is full.
            CorruptionError: Blocks of the log are missing here, as after restoring an old copy of the profile: to
                append would sign a second history, which every reader refuses for good.
            KeyMissingError: The signer does not hold the key.
            StorageError: Nothing was written.
        """
        if len(data) > BLOCK_BYTES_MAX:
            raise ValueError(f"a block of {len(data)} bytes is over {BLOCK_BYTES_MAX}")
        if self._contiguous >= FEED_BLOCKS_MAX:
            raise ValueError(f"a feed has at most {FEED_BLOCKS_MAX} blocks")
        if self._contiguous != self._length:
            raise CorruptionError(
                "This feed is longer elsewhere than on this device, so it cannot be written to here.",
                feed=self.key.truncate(),
                contiguous=self._contiguous,
                length=self._length,
            )
        index, length = self._contiguous, self._contiguous + 1
        leaf = merkle.leaf_node(index, data)
        added, roots = [leaf], list(self._load_roots())
        top = leaf
        while roots and roots[-1].index == merkle.sibling(top.index):
            top = merkle.parent_node(roots.pop(), top)
            added.append(top)
        roots.append(top)
        signature = signer.sign(self.key, merkle.signable(roots, length))
        self._storage.commit(LogWrite(index, data, tuple(added), signature, length, length, length))
        self._contiguous = self._length = length
        self._roots = tuple(roots)
        assert tuple(root.index for root in roots) == merkle.roots(length)
        return index

    def proof(self, index: int) -> Proof | None:
        """Return a stored block with what proves it to others; None if it is not stored here."""
        if not self.has(index):
            return None
        length = self._length
        path = merkle.make_path(index, length, self._node)
        if path is None:
            length = self._provable_length(index)
            path = merkle.make_path(index, length, self._node)
        signature = self._storage.signature(length - 1)
        if path is None or signature is None:
            raise CorruptionError("A feed lacks what proves its blocks.", feed=self.key.truncate(), index=index)
        return Proof(index, self.read(index), path, signature)

    def put_proof(self, index: int, data: bytes, nodes: Sequence[Node], signature: bytes) -> bool:
        """Verify a block that a peer sent and store it; blocks may come in any order.

        Args:
            index: Of the block; untrusted, as all that follow.
            data: The block.
            nodes: Siblings from the leaf upwards, then the other roots from left to right.
            signature: 64 bytes, over the roots.

        Returns:
            True if the block is new, False if the same block is stored already.

        Raises:
            ProofError: It is not the writer's block, or the writer signed another block at this place before.
            LimitError: Too large, or too far.
            StorageError: Nothing was written.
        """
        if not 0 <= index < FEED_BLOCKS_MAX:
            raise LimitError("A block is too far.", index=index, index_max=FEED_BLOCKS_MAX - 1)
        if len(data) > BLOCK_BYTES_MAX:
            raise LimitError("A block is too large.", bytes=len(data), bytes_max=BLOCK_BYTES_MAX)
        branch = merkle.follow_path(merkle.leaf_node(index, data), nodes)
        self._check_signature(branch, signature)
        fresh = self._check_history(branch)
        if self.has(index):
            return False
        known = self._storage.signature(branch.length - 1) is not None
        contiguous = self._contiguous
        if index == contiguous:
            contiguous += 1
            while contiguous < self._length and self._storage.has(contiguous):
                contiguous += 1
        length = max(self._length, branch.length)
        kept = None if known else signature
        self._storage.commit(LogWrite(index, data, fresh, kept, branch.length, contiguous, length))
        if contiguous != self._contiguous:
            self._contiguous, self._roots = contiguous, None
        self._length = length
        return True

    def _check_signature(self, branch: Branch, signature: bytes) -> None:
        message = merkle.signable(branch.roots, branch.length)
        if self._verified == (message, signature):
            return  # Blocks fetched one after another mostly share one signature.
        try:
            verify(self.key, message, signature)
        except ProofError:
            # Early hypercore 9 writers signed the roots without the length; 0.8.3 still takes that, so we do.
            verify(self.key, message[: merkle.HASH_BYTES], signature)
        self._verified = (message, signature)

    def _check_history(self, branch: Branch) -> tuple[Node, ...]:
        """Return the nodes that are new; ProofError if one contradicts what is stored."""
        fresh = []
        for node in branch.nodes:
            stored = self._storage.node(node.index)
            if stored is None:
                fresh.append(node)
            elif stored != (node.hash, node.size):
                raise ProofError("The writer of a feed signed two histories.", feed=self.key.truncate())
        return tuple(fresh)

    def _provable_length(self, index: int) -> int:
        """Return the longest log whose tree is known around a block: where blocks came out of order, an older one."""
        top = 2 * index
        while self._node(merkle.sibling(top)) and self._node(merkle.parent(top)):
            top = merkle.parent(top)
        end = merkle.blocks_end(top)
        for height in range(merkle.height(top) - 1, -1, -1):  # Roots get smaller from left to right.
            if self._node(2 * end + (1 << height) - 1):
                end += 1 << height
        return end

    def _load_roots(self) -> tuple[Node, ...]:
        if self._roots is None:
            found = [self._node(index) for index in merkle.roots(self._contiguous)]
            if None in found:
                raise CorruptionError("A feed lacks the roots of its tree.", feed=self.key.truncate())
            self._roots = tuple(node for node in found if node is not None)
        return self._roots

    def _node(self, index: int) -> Node | None:
        stored = self._storage.node(index)
        return None if stored is None else Node(index, *stored)

    def __repr__(self) -> str:
        return f"<Log {self.key.truncate()} {self._contiguous}/{self._length}>"
