from dxos.feed.merkle import leaf_node
from dxos.feed.storage import LogStorage, LogWrite, MemoryLogStorage


def test_memory_returns_what_was_committed() -> None:
    storage: LogStorage = MemoryLogStorage()
    leaf = leaf_node(0, b"one")
    assert storage.lengths() == (0, 0)
    storage.commit(LogWrite(0, b"one", (leaf,), b"s" * 64, 3, 1, 3))
    storage.commit(LogWrite(1, b"two", (), None, 3, 2, 3))
    assert storage.lengths() == (2, 3)
    assert [storage.block(index) for index in range(3)] == [b"one", b"two", None]
    assert [storage.has(index) for index in range(3)] == [True, True, False]
    assert storage.node(0) == (leaf.hash, leaf.size)
    assert storage.node(1) is None
    assert [storage.signature(index) for index in range(3)] == [None, None, b"s" * 64]
