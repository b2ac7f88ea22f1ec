import pytest

from dxos.errors import LimitError, ProofError
from dxos.feed import merkle
from dxos.feed.merkle import Node


def test_nodes_are_numbered_in_order() -> None:
    assert [merkle.height(index) for index in range(8)] == [0, 1, 0, 2, 0, 1, 0, 3]
    assert [merkle.sibling(index) for index in (0, 2, 1, 5, 3)] == [2, 0, 5, 1, 11]
    assert [merkle.parent(index) for index in (0, 2, 1, 5, 3, 11)] == [1, 1, 3, 3, 7, 7]
    assert [merkle.blocks_end(index) for index in (0, 2, 1, 3, 9, 11)] == [1, 2, 2, 4, 6, 8]


def test_roots_cover_a_log_from_left_to_right() -> None:
    assert [merkle.roots(length) for length in range(8)] == [
        (), (0,), (1,), (1, 4), (3,), (3, 8), (3, 9), (3, 9, 12),
    ]  # fmt: skip


def test_a_leaf_is_never_hashed_like_a_parent() -> None:
    left, right = merkle.leaf_node(0, b"a"), merkle.leaf_node(1, b"b")
    parent = merkle.parent_node(left, right)
    assert parent == merkle.parent_node(right, left)
    assert merkle.leaf_node(0, left.hash + right.hash).hash != parent.hash


def tree(length: int) -> dict[int, Node]:
    nodes = {2 * index: merkle.leaf_node(index, b"%d" % index) for index in range(length)}
    for height in range(1, length.bit_length()):
        for index in range((1 << height) - 1, 2 * length, 2 << height):
            half = 1 << (height - 1)
            if index - half in nodes and index + half in nodes:
                nodes[index] = merkle.parent_node(nodes[index - half], nodes[index + half])
    return nodes


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 13, 64, 100])
def test_a_path_leads_to_the_roots(length: int) -> None:
    nodes = tree(length)
    for index in range(length):
        path = merkle.make_path(index, length, nodes.get)
        assert path is not None
        branch = merkle.follow_path(nodes[2 * index], path)
        assert branch.length == length
        assert branch.roots == tuple(nodes[root] for root in merkle.roots(length))
        assert all(nodes[node.index] == node for node in branch.nodes)


def test_a_path_with_a_hole_is_no_path() -> None:
    nodes = tree(8)
    del nodes[5]
    assert merkle.make_path(0, 8, nodes.get) is None


def test_nodes_that_form_no_tree_are_refused() -> None:
    nodes = tree(7)
    leaf, path = nodes[0], merkle.make_path(0, 7, nodes.get)
    assert path is not None
    for broken in ((*path[:-2], path[-1]), path[1:], (*path, path[-1]), path[::-1], (*path[:-2], path[-1], path[-2])):
        with pytest.raises(ProofError):
            merkle.follow_path(leaf, broken)
    with pytest.raises(ProofError):
        merkle.follow_path(leaf, [Node(2, b"short", 1)])


def test_a_proof_of_too_many_nodes_is_refused_before_it_is_hashed() -> None:
    with pytest.raises(LimitError):
        merkle.follow_path(merkle.leaf_node(0, b""), [merkle.leaf_node(1, b"")] * (merkle.NODES_MAX + 1))
