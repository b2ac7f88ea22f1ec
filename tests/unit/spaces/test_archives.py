"""Archives of spaces on the host's side: copies that are spaces of their own, and imports that leave nothing."""

import io
import tarfile
from pathlib import Path

import anyio
import pytest

from dxos.echo import layout
from dxos.echo.archive import ArchiveMetadata, ArchiveWriter, read_archive
from dxos.echo.document import Document
from dxos.echo.mutation import Put
from dxos.errors import InvalidValueError, StorageFullError
from dxos.keys import PublicKey
from dxos.spaces.space import Space
from dxos.store.documents import DocumentStore
from dxos.store.schema import CHUNK_BITS
from dxos.testing.peers import Host, agreed, simulated_hosts

pytestmark = pytest.mark.anyio
Told = list[tuple[int, int]]


def nobody(done: int, total: int) -> None:
    """Nobody wants to know."""


async def exported(host: Host, space: Space) -> bytes:
    return (await host.peer.spaces.export_archive(space.id, nobody)).contents


def stored(host: Host) -> tuple[int, int, int]:
    """Documents, rows and spaces on the disk."""
    count = host.peer.profile.database.row(
        "SELECT (SELECT count(*) FROM documents), (SELECT count(*) FROM objects), (SELECT count(*) FROM space_records)"
    )
    assert count is not None
    return count[0], count[1], count[2]


async def test_a_copy_has_everything_and_is_a_space_of_its_own() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space(name="ours")
        milk = alice.add(space, title="Milk")
        told: Told = []
        archive = await alice.peer.spaces.export_archive(space.id, lambda *one: told.append(one))
        assert archive.missing == 0
        assert told == [(1, 1)]
        copy = await alice.peer.spaces.import_archive(archive.contents, nobody)
        theirs = await bob.peer.spaces.import_archive(archive.contents, nobody)
        assert len({space.id, copy.id, theirs.id}) == 3
        assert not {space.root_id} & {copy.root_id, theirs.root_id}
        for host, one in ((alice, copy), (bob, theirs)):
            assert host.data(one, milk) == {"title": "Milk"}
            assert host.peer.documents.stored_name(one.id) == "ours"
            assert one.role.name == "OWNER"
        alice.edit(copy, milk, Put(("title",), "Oat milk"))
        assert alice.data(space, milk) == {"title": "Milk"}


async def test_a_copy_is_shared_like_any_space() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        milk = alice.add(space, title="Milk")
        copy = await alice.peer.spaces.import_archive(await exported(alice, space), nobody)
        await bob.join(alice, copy)
        await agreed(copy, alice, bob)
        theirs = bob.peer.spaces.get(copy.id)
        bob.edit(theirs, milk, Put(("title",), "Oat milk"))
        await agreed(copy, alice, bob)
        assert alice.data(copy, milk) == {"title": "Oat milk"}


async def test_a_document_that_is_damaged_or_not_here_is_counted_and_left_out() -> None:
    async with simulated_hosts("alice") as (alice,):
        space = await alice.create_space()
        milk, bread = alice.add(space, title="Milk"), alice.add(space, title="Bread")
        documents = DocumentStore(alice.peer.profile.database)
        documents.quarantine(alice.peer.profile.objects.places(space.id, [milk])[milk], "damaged")
        archive = await alice.peer.spaces.export_archive(space.id, nobody)
        assert archive.missing == 1
        copy = await alice.peer.spaces.import_archive(archive.contents, nobody)
        assert alice.data(copy, bread) == {"title": "Bread"}
        assert not alice.peer.documents.get(copy.id, [milk])
        assert copy.root_id is not None
        assert set(layout.links(alice.peer.documents.load(copy.root_id))) == {bread}


async def test_documents_of_one_piece_are_in_the_archive_as_they_are_stored_unless_they_are_damaged() -> None:
    async with simulated_hosts("alice") as (alice,):
        space = await alice.create_space()
        milk, bread, eggs = [alice.add(space, title=one) for one in ("Milk", "Bread", "Eggs")]
        alice.edit(space, bread, Put(("title",), "Rye bread"))
        database, places = alice.peer.profile.database, alice.peer.profile.objects.places(space.id, [milk, bread, eggs])
        documents = DocumentStore(database)
        number = database.row("SELECT number FROM documents WHERE id = ?", (places[eggs],))
        assert number is not None
        content = documents.load(places[eggs])
        assert content is not None
        damaged = content[:-1] + bytes((content[-1] ^ 1,))
        database.run("UPDATE chunks SET bytes = ? WHERE position >> ? = ?", (damaged, CHUNK_BITS, *number))
        archive = await alice.peer.spaces.export_archive(space.id, nobody)
        assert archive.missing == 1
        _, found = read_archive(archive.contents)
        assert set(found) == {space.root_id, places[milk], places[bread]}
        assert found[places[milk]] == documents.load(places[milk])
        assert found[places[bread]] != documents.load(places[bread])  # Two changes are made one document.
        copy = await alice.peer.spaces.import_archive(archive.contents, nobody)
        assert [alice.data(copy, one) for one in (milk, bread)] == [{"title": "Milk"}, {"title": "Rye bread"}]


def without(archive: bytes, name_end: str, content: bytes | None = None) -> bytes:
    """The archive with the first file whose name ends so replaced, or left out."""
    buffer, done = io.BytesIO(), False
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=buffer, mode="w") as new:
        for entry in old.getmembers():
            found = old.extractfile(entry)
            assert found is not None
            data = found.read()
            if entry.name.endswith(name_end) and not done:
                done = True
                if content is None:
                    continue
                data = content
            entry.size = len(data)
            new.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


async def test_what_is_no_archive_leaves_nothing() -> None:
    async with simulated_hosts("alice") as (alice,):
        space = await alice.create_space()
        for number in range(3):
            alice.add(space, number=number)
        archive = await exported(alice, space)
        metadata, documents = read_archive(archive)
        leaf = next(one for one in sorted(documents, reverse=True) if one != metadata.root_id)
        before, keys = stored(alice), alice.peer.profile.keyring.keys()
        alone = ArchiveWriter()
        alone.add(leaf, documents[leaf])
        empty = ArchiveWriter()
        empty.add(leaf, Document.create().save())
        for bad in (
            b"nothing",
            archive[:1_000],
            without(archive, "metadata.json"),
            without(archive, f"{metadata.root_id}.bin"),
            without(archive, f"{metadata.root_id}.bin", b"no document"),
            without(archive, f"{leaf}.bin", documents[leaf][:-1]),
            without(archive, f"{leaf}.bin", Document.create().save()),
            alone.finish(ArchiveMetadata(leaf)),  # No root of a space.
            empty.finish(ArchiveMetadata(leaf)),
        ):
            with pytest.raises(InvalidValueError):
                await alice.peer.spaces.import_archive(bad, nobody)
            assert stored(alice) == before
            assert alice.peer.profile.keyring.keys() == keys
            assert list(alice.peer.spaces.all) == [space.id]


async def test_an_import_that_is_cancelled_or_finds_no_room_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with simulated_hosts("alice") as (alice,):
        space = await alice.create_space()
        for number in range(5):
            alice.add(space, number=number)
        archive = await exported(alice, space)
        before, keys = stored(alice), alice.peer.profile.keyring.keys()
        monkeypatch.setattr("dxos.spaces.archives.IMPORT_DOCUMENTS_BATCH", 2)

        with anyio.CancelScope() as scope:
            await alice.peer.spaces.import_archive(archive, lambda *_: scope.cancel())
        assert scope.cancelled_caught
        assert stored(alice) == before

        def full(done: int, total: int) -> None:
            raise StorageFullError("The disk is full.")

        with pytest.raises(StorageFullError):
            await alice.peer.spaces.import_archive(archive, full)
        assert stored(alice) == before
        assert alice.peer.profile.keyring.keys() == keys


async def test_what_an_import_that_was_killed_left_is_removed(tmp_path: Path) -> None:
    async with simulated_hosts("alice", folder=tmp_path) as (alice,):
        space = await alice.create_space()
        milk = alice.add(space, title="Milk")
        before = stored(alice)
        profile = alice.peer.profile
        profile.documents.create("B" + "A" * 32, [(alice.peer.documents.new_id(), [Document.create().save()], ())])
        assert stored(alice) != before
        await alice.kill()
        await alice.start()
        assert stored(alice) == before
        again = alice.peer.spaces.get(space.id)
        await again.wait_until_ready()
        assert alice.data(again, milk) == {"title": "Milk"}


async def test_a_document_says_only_what_the_root_says_it_holds() -> None:
    async with simulated_hosts("alice") as (alice,):
        space = await alice.create_space()
        milk, bread = alice.add(space, title="Milk"), alice.add(space, title="Bread")
        metadata, documents = read_archive(await exported(alice, space))
        places = alice.peer.profile.objects.places(space.id, [milk, bread])
        liar = Document.load(documents[places[milk]])
        layout.add_inline_object(liar, bread, layout.ObjectStructure({"title": "mine"}))
        writer = ArchiveWriter()
        for document_id, content in {**documents, places[milk]: liar.save()}.items():
            writer.add(document_id, content)
        copy = await alice.peer.spaces.import_archive(writer.finish(metadata), nobody)
        assert alice.data(copy, bread) == {"title": "Bread"}


async def test_every_copied_document_names_the_new_space() -> None:
    async with simulated_hosts("alice") as (alice,):
        space = await alice.create_space()
        alice.add(space, title="Milk")
        copy = await alice.peer.spaces.import_archive(await exported(alice, space), nobody)
        documents = alice.peer.documents
        keys: set[PublicKey | None] = {layout.space_key_of(documents.load(one)) for one in documents.documents(copy.id)}
        assert keys == {copy.key}
