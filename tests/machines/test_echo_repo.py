"""Two and three peers that replicate documents over lists."""

import pytest
from echo_peers import (
    OTHER,
    OTHER_KEY,
    SPACE,
    SPACE_KEY,
    MemorySource,
    Wire,
    fill,
    make_document_id,
    make_root_in,
    object_id,
)

from dxos.echo import edit, messages, sync_message
from dxos.echo.document import ROOT, Document
from dxos.echo.layout import ObjectStructure, make_object_document, space_key_of
from dxos.echo.messages import Collection, CollectionQuery, CollectionState, Sync, Unavailable
from dxos.echo.mutation import Put
from dxos.echo.repo import (
    CollectionCompared,
    DocumentFailed,
    DocumentReceived,
    DocumentRefused,
    DocumentUnavailable,
    RepoSession,
    RootAnnounced,
    SharedSpace,
    WriteRefused,
)
from dxos.errors import LimitError, ProtocolError
from dxos.limits import ROOT_APART_S, ROOT_SETTLE_S

SHARED = SharedSpace(SPACE, SPACE_KEY)
ONE = make_document_id(1)
NEW_ROOT, OLD_ROOT = make_document_id(0), make_document_id(90)


def put(source: MemorySource, number: int, **values: object) -> None:
    id_ = make_document_id(number)
    edit.apply(source.load(id_), object_id(number), [Put((key,), value) for key, value in values.items()])  # type: ignore[arg-type]
    source.changed(id_)


def joined(count: int = 3) -> tuple[MemorySource, MemorySource, Wire]:
    alice, bob = MemorySource(), MemorySource()
    fill(alice, count)
    wire = Wire(alice, bob)
    wire.settle()
    return alice, bob, wire


def test_a_joining_peer_gets_every_document() -> None:
    alice, bob, wire = joined()
    assert alice.rows() == bob.rows()
    assert all(session.in_sync for session in wire.sessions)
    assert sum(isinstance(event, DocumentReceived) and event.new for event in wire.events[1]) == 3
    assert CollectionCompared(SPACE, 3) in wire.events[0]


def test_a_thousand_documents_take_two_messages_each() -> None:
    alice, bob, wire = joined(1_000)
    assert len(bob.index) == 1_000
    assert wire.count <= 2 * 1_000 + 4  # And two queries with their answers.
    assert alice.index == bob.index


def test_an_edit_takes_two_messages() -> None:
    alice, bob, wire = joined()
    for source, value in ((alice, 1), (bob, 2), (alice, 3)):
        before = wire.count
        put(source, 2, n=value)
        wire.settle()
        assert wire.count - before == 2
        assert alice.rows() == bob.rows()


def test_an_edit_is_said_at_once() -> None:
    alice, _, wire = joined()
    put(alice, 1, done=True)
    assert len(wire.sessions[0].evaluate(now=wire.now)) == 1


def test_a_new_document_takes_two_messages() -> None:
    alice, bob, wire = joined()
    before = wire.count
    fill(bob, 1, first=50)
    wire.settle()
    assert wire.count - before == 2
    assert alice.rows() == bob.rows()


def test_peers_that_agree_say_so_without_loading_a_document() -> None:
    alice, bob, wire = joined()
    wire.close()
    alice.forget_cache()
    bob.forget_cache()
    alice.loads = bob.loads = 0
    again = Wire(alice, bob)
    again.settle()
    assert (again.count, alice.loads, bob.loads) == (4, 0, 0)
    before = again.count
    put(alice, 1, n=1)
    again.settle()
    assert again.count - before == 2


def test_what_both_changed_while_apart_is_merged() -> None:
    alice, bob, wire = joined()
    wire.close()
    put(alice, 1, alice=1)
    put(bob, 1, bob=1)
    put(bob, 2, bob=2)
    fill(alice, 1, first=60)
    fill(bob, 1, first=70)
    Wire(alice, bob).settle()
    assert alice.rows() == bob.rows()
    assert alice.rows()[ONE][0].data["alice"] == alice.rows()[ONE][0].data["bob"] == 1


def test_crossing_edits_are_merged() -> None:
    alice, bob, wire = joined()
    for number in range(10):
        put(alice, 1, **{f"a{number}": number})
        put(bob, 1, **{f"b{number}": number})
        for side in (0, 1):
            wire.send(side)
        wire.deliver(number % 2)
    wire.settle()
    assert alice.rows() == bob.rows()
    assert all(session.in_sync for session in wire.sessions)


def test_what_one_peer_sends_goes_on_to_the_next() -> None:
    alice, bob, carol = MemorySource(), MemorySource(), MemorySource()
    left, right = Wire(alice, bob), Wire(bob, carol)
    fill(alice, 3)
    for _ in range(3):
        left.settle()
        right.settle()
    put(carol, 2, carol=True)
    for _ in range(2):
        right.settle()
        left.settle()
    assert alice.rows() == bob.rows() == carol.rows()


def test_collections_are_asked_for_on_connecting_and_every_thirty_seconds() -> None:
    _, _, wire = joined()
    session = wire.sessions[0]
    assert session.wake_at == 30.0
    assert session.evaluate(now=29.9) == []
    (query,) = session.evaluate(now=30.0)
    assert messages.decode(query) == CollectionQuery(Collection(SPACE))
    assert session.wake_at == 60.0


def test_queries_are_answered_truthfully_under_the_id_they_used() -> None:
    alice, bob = MemorySource(), MemorySource()
    fill(alice, 2)
    session = Wire(alice, bob, spaces=(SHARED,)).sessions[0]
    session.evaluate(now=0.0)
    for collection in (Collection(SPACE), Collection(SPACE, make_document_id(9)), Collection(OTHER)):
        session.receive(messages.encode(CollectionQuery(collection), sender="b", target="a"), now=0.0)
        (answer,) = session.evaluate(now=0.0)
        held = alice.documents(SPACE) if collection.space_id == SPACE else {}
        assert messages.decode(answer) == CollectionState(collection, held)


def test_a_peer_that_lacks_the_root_hears_which_it_is() -> None:
    alice, bob = MemorySource(), MemorySource()
    root_id = make_root_in(alice)
    wire = Wire(alice, bob, spaces=(SharedSpace(SPACE, SPACE_KEY, root_id),), other_spaces=(SHARED,))
    wire.settle()
    assert RootAnnounced(SPACE, root_id) in wire.events[1]
    assert space_key_of(bob.load(root_id)) == SPACE_KEY


def test_a_document_is_found_by_its_id() -> None:
    alice, bob = MemorySource(), MemorySource()
    fill(alice, 2)
    wire = Wire(alice, bob)
    for session in wire.sessions:
        session.evaluate(now=0.0)  # Nobody hears these queries.
    wire.sessions[1].find(ONE)
    wire.settle()
    assert set(bob.index) == {ONE}


def test_a_document_nobody_has_is_unavailable() -> None:
    _, _, wire = joined()
    wire.sessions[1].find(make_document_id(99))
    wire.settle()
    assert wire.events[1][-1] == DocumentUnavailable(make_document_id(99))
    assert wire.sessions[1].in_sync


def test_a_peer_that_does_not_send_what_it_has_is_asked() -> None:
    bob = MemorySource()
    session = RepoSession(own_id="b", peer_id="a", source=bob)
    session.share(SHARED, now=0.0)
    session.evaluate(now=0.0)
    state = CollectionState(Collection(SPACE), {ONE: (bytes(32),)})
    session.receive(messages.encode(state, sender="a", target="b"), now=5.0)
    assert session.wake_at == 6.0
    assert session.evaluate(now=5.9) == []
    (asked,) = session.evaluate(now=6.0)
    match messages.decode(asked):
        case Sync(document_id, _, True):
            assert document_id == ONE
        case other:
            pytest.fail(f"no request: {other}")


def after_an_epoch() -> tuple[MemorySource, RepoSession]:
    """A session with a peer of 0.8.3 that has a document and is at the root of the epoch before."""
    alice = MemorySource()
    fill(alice, 1)
    make_root_in(alice)
    session = RepoSession(own_id="a", peer_id="b", source=alice)
    alice.sessions.append(session)
    session.share(SharedSpace(SPACE, SPACE_KEY, NEW_ROOT, earlier_root_ids=(OLD_ROOT,)), now=0.0)
    for asked in (Collection(SPACE), Collection(SPACE, OLD_ROOT)):
        session.receive(messages.encode(CollectionQuery(asked), sender="b", target="a"), now=0.0)
    position = Sync(ONE, sync_message.encode_position(alice.index[ONE].heads))
    session.receive(messages.encode(position, sender="b", target="a"), now=0.0)
    session.evaluate(now=0.0)
    return alice, session


def said(session: RepoSession, now: float) -> set[str]:
    """The documents that are spoken of."""
    found: set[str] = set()
    while (batch := session.evaluate(now=now)) or session.has_more:
        decoded = [messages.decode(one) for one in batch]
        found |= {one.document_id for one in decoded if isinstance(one, Sync)}
    return found


def test_a_0_8_3_peer_gets_what_is_new_only_after_it_went_over_to_the_root() -> None:
    alice, session = after_an_epoch()
    new = make_document_id(5)
    alice.add(new, make_object_document(SPACE_KEY, object_id(5), ObjectStructure({})))
    assert said(session, 1.0) == set()
    assert session.wake_at == ROOT_APART_S
    assert not session.in_sync
    query = CollectionQuery(Collection(SPACE, NEW_ROOT))
    session.receive(messages.encode(query, sender="b", target="a"), now=3.0)
    assert said(session, 3.0) == set()
    assert session.wake_at == 3.0 + ROOT_SETTLE_S
    assert said(session, 3.0 + ROOT_SETTLE_S) == {new}


def test_a_0_8_3_peer_that_stays_at_another_root_gets_what_is_new_all_the_same() -> None:
    alice, session = after_an_epoch()
    new = make_document_id(5)
    alice.add(new, make_object_document(SPACE_KEY, object_id(5), ObjectStructure({})))
    assert said(session, ROOT_APART_S - 0.1) == set()
    assert said(session, ROOT_APART_S) == {new}


def test_roots_and_what_the_peer_has_wait_for_no_root() -> None:
    alice, session = after_an_epoch()
    alice.add(OLD_ROOT, Document.load(alice.held[NEW_ROOT][1]))
    put(alice, 1, n=2)
    session.document_changed(NEW_ROOT)
    assert said(session, 1.0) == {ONE, OLD_ROOT, NEW_ROOT}


def test_a_document_of_another_space_is_never_named_nor_served() -> None:
    alice, bob = MemorySource(), MemorySource()
    fill(alice, 2)
    fill(alice, 1, first=7, key=OTHER_KEY, space=OTHER)
    secret = make_document_id(7)
    wire = Wire(alice, bob)
    wire.settle()
    wire.sessions[1].find(secret)
    alice.sessions[0].document_changed(secret)
    wire.settle()
    assert secret not in bob.index
    assert DocumentUnavailable(secret) in wire.events[1]
    assert DocumentRefused(secret) in wire.events[0]
    missing = make_document_id(8)
    answers = []
    for id_ in (secret, missing):
        document = Document.create()
        session = RepoSession(own_id="b", peer_id="a", source=MemorySource())
        session.find(id_)
        (asked,) = session.evaluate(now=0.0)
        wire.sessions[0].receive(asked, now=0.0)
        (answer,) = wire.sessions[0].evaluate(now=0.0)
        answers.append(messages.decode(answer))
        assert not document.heads
    assert answers == [Unavailable(secret), Unavailable(missing)]


def test_a_document_that_names_a_space_not_shared_is_not_adopted() -> None:
    alice, bob = MemorySource(), MemorySource()
    wire = Wire(alice, bob)
    wire.settle()
    # Alice keeps it under the shared space, but it says that it is of the other.
    alice.add(ONE, make_object_document(OTHER_KEY, object_id(1), ObjectStructure({})), SPACE)
    wire.settle()
    assert bob.index == {}
    assert DocumentRefused(ONE) in wire.events[1]


def test_a_peer_that_moves_a_document_to_another_space_is_cut_off() -> None:
    alice, bob, wire = joined()
    before = bob.rows()
    with alice.load(ONE).edit() as opened:
        opened.put(ROOT, "access", {"spaceKey": OTHER_KEY.hex})
    alice.changed(ONE)
    with pytest.raises(ProtocolError):
        wire.settle()
    assert bob.rows() == before


def test_a_space_shared_no_longer_is_refused() -> None:
    alice, bob, wire = joined()
    wire.sessions[0].unshare(SPACE)
    put(alice, 1, n=1)
    put(bob, 2, n=2)
    wire.settle()
    assert "n" not in alice.rows()[make_document_id(2)][0].data
    assert "n" not in bob.rows()[ONE][0].data


def reading(count: int = 3) -> tuple[MemorySource, MemorySource, Wire]:
    """Bob may only read."""
    alice, bob = MemorySource(), MemorySource()
    fill(alice, count)
    wire = Wire(alice, bob, spaces=(SharedSpace(SPACE, SPACE_KEY, remote_may_write=False),), other_spaces=(SHARED,))
    wire.settle()
    return alice, bob, wire


def test_a_reader_reads() -> None:
    alice, bob, wire = reading()
    assert alice.rows() == bob.rows()
    put(alice, 1, n=1)
    wire.settle()
    assert alice.rows() == bob.rows()
    assert not any(isinstance(event, WriteRefused) for event in wire.events[0])


def test_what_a_reader_writes_is_dropped_and_reading_goes_on() -> None:
    alice, bob, wire = reading()
    before = alice.rows()
    put(bob, 1, mine=True)
    wire.settle()
    assert alice.rows() == before
    assert WriteRefused(ONE, SPACE) in wire.events[0]
    put(alice, 1, hers=True)
    wire.settle()
    assert bob.rows()[ONE][0].data["hers"] is True
    assert "mine" not in alice.rows()[ONE][0].data
    put(bob, 1, again=True)
    put(alice, 2, other=True)
    wire.settle()
    assert "again" not in alice.rows()[ONE][0].data
    assert bob.rows()[make_document_id(2)][0].data["other"] is True
    count = wire.count
    wire.now = 100.0
    wire.settle()
    assert wire.count - count < 10


def test_a_document_that_a_reader_makes_is_dropped() -> None:
    alice, bob, wire = reading()
    fill(bob, 1, first=80)
    wire.settle()
    assert make_document_id(80) not in alice.index


def test_a_reader_of_one_space_cannot_add_to_it_while_it_writes_another() -> None:
    alice, bob = MemorySource(), MemorySource()
    spaces = SharedSpace(SPACE, SPACE_KEY, remote_may_write=False), SharedSpace(OTHER, OTHER_KEY)
    wire = Wire(alice, bob, spaces=spaces, other_spaces=(SHARED, SharedSpace(OTHER, OTHER_KEY)))
    fill(bob, 1, first=80)
    fill(bob, 1, first=90, key=OTHER_KEY, space=OTHER)
    wire.settle()
    assert set(alice.index) == {make_document_id(90)}
    assert WriteRefused(make_document_id(80), SPACE) in wire.events[0]


def test_a_reader_that_changes_too_much_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dxos.echo.repo.SYNC_REFUSED_DOCUMENTS_MAX", 2)
    _, bob, wire = reading(3)
    for number in (1, 2, 3):
        put(bob, number, mine=True)
    with pytest.raises(LimitError):
        wire.settle()


def test_a_damaged_document_does_not_stop_the_others() -> None:
    alice, bob = MemorySource(), MemorySource()
    fill(alice, 3)
    alice.damaged.add(ONE)
    wire = Wire(alice, bob)
    wire.settle()
    assert set(bob.index) == {make_document_id(2), make_document_id(3)}
    assert DocumentFailed(ONE) in wire.events[0]


def test_a_batch_ends_when_it_is_large_enough() -> None:
    alice, bob = MemorySource(), MemorySource()
    fill(alice, 100)
    wire = Wire(alice, bob)
    wire.send(1)
    wire.deliver(0)
    while wire.queues[0]:
        wire.deliver(0)
    wire.sessions[0].documents_added(alice.index)
    batches = []
    while batch := wire.sessions[0].evaluate(now=0.0, batch_bytes=2_000):
        batches.append(sum(map(len, batch)))
    assert len(batches) > 10
    assert max(batches[1:]) < 4_000  # The first holds the answer to the query.


def test_long_lists_are_made_and_compared_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dxos.echo.repo.SYNC_LOOKS_MAX", 10)
    alice, bob = MemorySource(), MemorySource()
    fill(alice, 35)
    fill(bob, 25, first=100)
    wire = Wire(alice, bob)
    session = wire.sessions[0]
    session.evaluate(now=0.0)
    session.receive(messages.encode(CollectionQuery(Collection(SPACE)), sender="b", target="a"), now=0.0)
    assert [len(session.evaluate(now=0.0)) for _ in range(4)] == [0, 0, 0, 1]
    announced = CollectionState(Collection(SPACE), bob.documents(SPACE))
    assert session.receive(messages.encode(announced, sender="b", target="a"), now=0.0) == []
    turns = 0
    while not (events := session.take_events()):
        session.evaluate(now=0.0)
        turns += 1
    assert turns >= 5
    assert events == [CollectionCompared(SPACE, 60, tuple(bob.index))]
    wire.close()
    Wire(alice, bob).settle()
    assert alice.index == bob.index


def test_a_list_in_pieces_does_not_undo_what_the_peer_said_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    alice, _, wire = joined(12)
    monkeypatch.setattr("dxos.echo.repo.SYNC_LOOKS_MAX", 5)
    session, last = wire.sessions[0], make_document_id(12)
    announced = CollectionState(Collection(SPACE), {})
    session.receive(messages.encode(announced, sender="b", target="a"), now=0.0)
    position = sync_message.encode_position(alice.index[last].heads)
    session.receive(messages.encode(Sync(last, position), sender="b", target="a"), now=0.0)
    assert last not in said(session, 0.0)
    assert not session.has_more


def test_a_large_root_is_loaded_in_one_turn_and_said_in_the_next() -> None:
    alice, bob = MemorySource(), MemorySource()
    root_id = make_root_in(alice)
    fill(alice, 2)
    alice.forget_cache()
    spaces = (SharedSpace(SPACE, SPACE_KEY, root_id),)
    session = Wire(alice, bob, spaces=spaces).sessions[0]
    session.evaluate(now=0.0)
    session.receive(messages.encode(CollectionState(Collection(SPACE), {}), sender="b", target="a"), now=0.0)
    assert session.evaluate(now=0.0) == []
    assert (alice.loads, session.has_more) == (1, True)
    assert said(session, 0.0) == {root_id, ONE, make_document_id(2)}


def test_a_space_that_is_shared_no_longer_is_forgotten_without_a_look_at_its_documents() -> None:
    alice, _, wire = joined()
    session = wire.sessions[0]
    alice.index.clear()
    session.unshare(SPACE)
    alice.cache.clear()
    assert session._copies == {}


def test_a_peer_that_only_asks_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dxos.echo.repo.SYNC_ANSWERS_MAX", 5)
    session = joined()[2].sessions[0]

    def ask(number: int) -> None:
        query = CollectionQuery(Collection(SPACE, make_document_id(number)))
        session.receive(messages.encode(query, sender="b", target="a"), now=0.0)

    for number in range(5):
        ask(number)
    with pytest.raises(LimitError):
        ask(5)


def test_a_peer_that_announces_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dxos.echo.repo.SYNC_PENDING_DOCUMENTS_MAX", 5)
    session = joined()[2].sessions[0]
    data = b"\x42\x01" + bytes(32) + b"\0\x01\0\0\0"

    def announce(number: int) -> None:
        session.receive(messages.encode(Sync(make_document_id(number), data), sender="b", target="a"), now=0.0)

    for number in range(100, 105):
        announce(number)
    with pytest.raises(LimitError):
        announce(105)


def give_up(source: MemorySource, id_: str) -> None:
    source.given_up[id_] = source.index.pop(id_).heads
    source.cache.pop(id_)
    for session in source.sessions:
        session.documents_given_up([id_])


def test_a_peer_that_gave_up_what_we_still_have_is_in_sync_once_it_declined_it_as_it_is() -> None:
    alice, bob, wire = joined()
    give_up(bob, ONE)
    wire.now = 30.0
    wire.settle()  # By lists: the peer had it, and has it no more.
    wire.now = 35.0
    wire.settle()
    assert ONE in alice.index
    assert ONE not in bob.index
    assert all(session.in_sync for session in wire.sessions)


def test_a_document_that_a_peer_gave_up_is_sent_again_once_it_has_changed() -> None:
    alice, bob, wire = joined()
    give_up(bob, ONE)
    for wire.now in (30.0, 35.0):
        wire.settle()
    put(alice, 1, title="restored")
    wire.settle()
    assert bob.rows()[ONE][0].data["title"] == "restored"
    assert all(session.in_sync for session in wire.sessions)


def test_a_document_that_is_given_up_while_the_peer_waits_for_an_answer_is_answered() -> None:
    alice, bob, wire = joined()
    put(alice, 1, mine=True)
    wire.send(0)
    wire.deliver(1)
    give_up(bob, ONE)  # Before a word about it was said.
    wire.settle()
    assert wire.sessions[0]._syncing == {}
    for wire.now in (5.0, 10.0):
        wire.settle()
    assert all(session.in_sync for session in wire.sessions)


def test_a_peer_that_does_not_share_the_space_yet_is_not_in_sync_however_often_it_declines() -> None:
    alice, bob = MemorySource(), MemorySource()
    fill(alice, 1)
    wire = Wire(alice, bob, other_spaces=(SharedSpace(OTHER, OTHER_KEY),))
    for wire.now in (0.0, 5.0, 10.0, 15.0):
        wire.settle()
        assert not wire.sessions[0].in_sync
    wire.sessions[1].share(SHARED, now=wire.now)
    wire.settle()
    assert alice.rows() == bob.rows()
    assert all(session.in_sync for session in wire.sessions)


def test_repr_is_one_short_line() -> None:
    assert repr(joined()[2].sessions[0]) == "<RepoSession peer=host-other spaces=1 due=0 wanted=0>"
