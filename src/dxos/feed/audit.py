"""Checks a stored feed from its blocks up: what a running log takes for granted, because it was checked on arrival."""

from typing import final

from msgspec import Struct

from dxos.errors import CorruptionError, ProofError
from dxos.feed import merkle
from dxos.feed.merkle import Node
from dxos.feed.storage import LogStorage
from dxos.keys import PublicKey, verify


@final
class FeedAudit(Struct, frozen=True):
    """What is wrong with a stored feed; nothing, if the three tuples are empty."""

    blocks: tuple[int, ...]  # Indexes of blocks that are damaged, or missing although they were stored.
    nodes: tuple[Node, ...]  # What tree nodes should be that are stored otherwise or not at all.
    signatures: tuple[int, ...]  # Lengths whose signature does not fit the blocks below, shortest first.
    proven: int  # So many blocks from 0 on are whole and covered by a signature that fits them.
    tree: tuple[Node, ...]  # The roots of all blocks from 0 on without a damaged one.

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.blocks or self.nodes or self.signatures)


def audit(key: PublicKey, storage: LogStorage) -> FeedAudit:
    """Read a whole feed and compare blocks, tree and signatures.

    Blocks beyond the first gap, which a log may have while it is being fetched, are compared with their leaf only.

    Args:
        key: The feed's public key.
        storage: Where it is kept.
    """
    contiguous, length = storage.lengths()
    blocks, nodes, signatures, proven = [], [], [], 0
    roots: list[Node] = []
    is_unbroken = True
    for index in range(length):
        data = _block(storage, index)
        if data is None:
            is_unbroken = False
            if index < contiguous or storage.has(index):
                blocks.append(index)
            continue
        leaf = merkle.leaf_node(index, data)
        fresh = [leaf]
        if is_unbroken:
            top = leaf
            while roots and roots[-1].index == merkle.sibling(top.index):
                top = merkle.parent_node(roots.pop(), top)
                fresh.append(top)
            roots.append(top)
            verdict = _fits(key, roots, index + 1, storage.signature(index))
            if verdict is True:
                proven = index + 1
            elif verdict is False or index + 1 == length:
                signatures.append(index + 1)
        nodes += [node for node in fresh if storage.node(node.index) != (node.hash, node.size)]
    return FeedAudit(tuple(blocks), tuple(nodes), tuple(signatures), proven, tuple(roots))


def _block(storage: LogStorage, index: int) -> bytes | None:
    try:
        return storage.block(index)
    except CorruptionError:
        return None


def _fits(key: PublicKey, roots: list[Node], length: int, signature: bytes | None) -> bool | None:
    """Whether a signature covers a tree; None if there is no signature."""
    if signature is None:
        return None
    message = merkle.signable(roots, length)
    for signed in (message, message[: merkle.HASH_BYTES]):  # The second is what early writers signed.
        try:
            verify(key, signed, signature)
        except ProofError:
            continue
        return True
    return False
