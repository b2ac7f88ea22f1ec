"""The hash tree over a log's blocks: how nodes are numbered and hashed, and how one block is proven against a root.

    3               Nodes are numbered by their in-order position ("flat tree"): block i is the leaf 2i, and the
    ├── 1           number of trailing one bits of an index is its height. A log whose length is no power of two has
    │   ├── 0       several roots, one for each one bit of its length, left to right. What the writer signs is the
    │   └── 2       hash of all roots, so that a proof is the siblings of a path and the other roots.
    └── 5
        ├── 4
        └── 6

Numbering and hashes are hypercore 9's (BLAKE2b-256 with one type byte, so a leaf is never taken for a parent).
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import final

from msgspec import Struct

from dxos.errors import LimitError, ProofError
from dxos.limits import FEED_BLOCKS_MAX

HASH_BYTES = 32
SIZE_BYTES = 8  # Sizes and indexes are hashed as unsigned 64-bit numbers, big-endian.
LEAF, PARENT, ROOT = b"\x00", b"\x01", b"\x02"
NODES_MAX = 2 * FEED_BLOCKS_MAX.bit_length()  # Siblings of one path and the other roots of the longest log.


@final
class Node(Struct, frozen=True):
    """One node of the tree."""

    index: int  # Flat-tree number.
    hash: bytes  # 32 bytes.
    size: int  # Bytes of all blocks below.


@final
class Proof(Struct, frozen=True):
    """A block and what shows that the feed's writer signed it."""

    index: int  # Of the block.
    data: bytes
    nodes: tuple[Node, ...]  # Siblings from the leaf upwards, then the other roots from left to right.
    signature: bytes  # 64 bytes, over the roots.


@final
class Branch(Struct, frozen=True):
    """What follows from a proof, if its signature is good."""

    nodes: tuple[Node, ...]  # The leaf, every given node, and every parent on the way.
    roots: tuple[Node, ...]  # From left to right.
    length: int  # Blocks in the log the roots describe.


def height(index: int) -> int:
    """Return how many levels above the leaves a node is."""
    return (index ^ (index + 1)).bit_length() - 1


def sibling(index: int) -> int:
    """Return the other child of a node's parent."""
    return index ^ (2 << height(index))


def parent(index: int) -> int:
    """Return the node above."""
    bit = 1 << height(index)
    return (index | bit) & ~(bit << 1)


def blocks_end(index: int) -> int:
    """Return the index after the last block below a node."""
    return (index + (1 << height(index)) + 1) // 2


def roots(length: int) -> tuple[int, ...]:
    """Return the roots of a log of `length` blocks, from left to right."""
    found = []
    start = 0
    for bit in range(length.bit_length() - 1, -1, -1):
        if length >> bit & 1:
            found.append(2 * start + (1 << bit) - 1)
            start += 1 << bit
    return tuple(found)


def leaf_node(index: int, data: bytes) -> Node:
    """Hash block number `index`."""
    return Node(2 * index, _hash(LEAF + _number(len(data)) + data), len(data))


def parent_node(one: Node, other: Node) -> Node:
    """Hash two siblings, given in either order."""
    assert sibling(one.index) == other.index, "only siblings have a parent"
    left, right = (one, other) if one.index < other.index else (other, one)
    size = left.size + right.size
    return Node(parent(one.index), _hash(PARENT + _number(size) + left.hash + right.hash), size)


def tree_hash(root_nodes: Iterable[Node]) -> bytes:
    """Hash all roots, from left to right: what the writer signs, together with the length."""
    return _hash(ROOT + b"".join(n.hash + _number(n.index) + _number(n.size) for n in root_nodes))


def signable(root_nodes: Sequence[Node], length: int) -> bytes:
    """Return the 40 bytes that the signature of a log of `length` blocks covers."""
    return tree_hash(root_nodes) + _number(length)


def make_path(index: int, length: int, node: Callable[[int], Node | None]) -> tuple[Node, ...] | None:
    """Collect the nodes that prove block `index` in a log of `length` blocks; None if one is not known."""
    assert 0 <= index < length
    tops = roots(length)
    wanted = []
    top = 2 * index
    while top not in tops:
        wanted.append(sibling(top))
        top = parent(top)
    wanted.extend(root for root in tops if root != top)
    found = [node(each) for each in wanted]
    return None if None in found else tuple(each for each in found if each is not None)


def follow_path(leaf: Node, untrusted_nodes: Sequence[Node]) -> Branch:
    """Compute the roots a proof leads to; nothing is proven before a signature over them is checked.

    Args:
        leaf: Hash of the block that the proof is for.
        untrusted_nodes: The proof's nodes in its own order: siblings upwards, then the other roots left to right.

    Raises:
        ProofError: The nodes do not form the tree of any log.
        LimitError: More nodes, or a longer log, than the limits allow.
    """
    if len(untrusted_nodes) > NODES_MAX:
        raise LimitError("Too many nodes in a proof.", count=len(untrusted_nodes), count_max=NODES_MAX)
    for each in untrusted_nodes:
        if len(each.hash) != HASH_BYTES or not 0 <= each.size < 1 << 53 or not 0 <= each.index < 2 * FEED_BLOCKS_MAX:
            raise ProofError("A node of a proof is not a node.")
    path, top, used = [leaf], leaf, 0
    for each in untrusted_nodes:
        if each.index != sibling(top.index):
            break
        top = parent_node(top, each)
        path += (each, top)
        used += 1
    others = untrusted_nodes[used:]
    root_nodes = tuple(sorted((top, *others), key=lambda each: each.index))
    length = blocks_end(root_nodes[-1].index)
    if length > FEED_BLOCKS_MAX:
        raise LimitError("The feed is too long.", length=length, length_max=FEED_BLOCKS_MAX)
    if tuple(each.index for each in root_nodes) != roots(length):
        raise ProofError("The roots of a proof are not the roots of a log.")
    if tuple(others) != tuple(each for each in root_nodes if each is not top):
        raise ProofError("The roots of a proof are out of order.")
    return Branch((*path, *others), root_nodes, length)


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=HASH_BYTES).digest()


def _number(value: int) -> bytes:
    return value.to_bytes(SIZE_BYTES, "big")
