"""Whatever peers undo and redo while they do not hear of each other: each takes back its own changes, and no others.

Everything that a peer puts in is its own mark: an element, a character, an object, a value of a field that is its own.
So the marks that must be there in the end are those that their makers did and did not undo, whoever merged with whom.

`DXOS_EXAMPLES=1000 pytest tests/properties/test_undo.py` looks further than the few examples of every run.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dxos.echo import layout
from dxos.echo.document import Document
from dxos.echo.layout import ObjectStructure
from dxos.echo.mutation import Delete, Insert, Mutation, Put, Splice
from dxos.echo.query import Query
from dxos.echo.rows import ObjectRow
from dxos.keys import PublicKey
from dxos.keys.ids import make_object_id, space_id
from dxos.spaces.documents import Documents, ObjectEdit
from dxos.spaces.history import History
from dxos.store.profile import Profile
from dxos.testing.peers import seeded_random

EXAMPLES = int(os.environ.get("DXOS_EXAMPLES", "25"))
PEERS = 3
KEY = PublicKey(b"\4" + b"k" * 64)
SPACE = space_id(KEY)
START_MS = 1_760_000_000_000
NAME, SHARED = make_object_id(START_MS, bytes(10)), make_object_id(START_MS + 1, bytes(10))
_FIRST_CHARACTER = 0x4E00  # Each character of the text is a mark of its own.


@dataclass(frozen=True)
class Action:
    """One thing a peer does to what all share."""

    what: str  # "element", "character", "object", "put", "delete" or "contest".
    at: int


@dataclass(frozen=True)
class Edit:
    """A peer does several things in one turn, which may take an update each."""

    peer: int
    actions: tuple[Action, ...]
    in_pieces: bool


@dataclass(frozen=True)
class Reverse:
    """A peer undoes or redoes."""

    peer: int
    redo: bool


@dataclass(frozen=True)
class Meet:
    """Two peers tell each other all that they have."""

    peer: int
    other: int


@dataclass(frozen=True)
class Restart:
    """A peer begins anew with what it has on its disk."""

    peer: int


peers_ = st.integers(0, PEERS - 1)
actions = st.builds(
    Action, st.sampled_from(["element", "character", "object", "put", "delete", "contest"]), st.integers(0, 6)
)
steps_ = st.lists(
    st.one_of(
        st.builds(Edit, peers_, st.lists(actions, min_size=1, max_size=3).map(tuple), st.booleans()),
        st.builds(Edit, peers_, st.lists(actions, min_size=1, max_size=3).map(tuple), st.booleans()),
        st.builds(Reverse, peers_, st.booleans()),
        st.builds(Reverse, peers_, st.just(False)),
        st.builds(Meet, peers_, peers_),
        st.builds(Restart, peers_),
    ),
    max_size=25,
)


@dataclass
class Marks:
    """What one turn of a peer put in."""

    elements: list[int] = field(default_factory=list)
    characters: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    own: list[int | None] = field(default_factory=list)  # Values of the peer's own field; None: deleted.


class Peer:
    """A host without a network, and what it is expected to have said by now."""

    def __init__(self, number: int, profile: Profile) -> None:
        self.number, self.profile, self._random = number, profile, seeded_random(number)
        self.done: list[Marks] = []
        self.undone: list[Marks] = []
        self.restart()

    def restart(self, root_id: str | None = None) -> None:
        self.documents = Documents(self.profile, random=self._random, now_ms=lambda: START_MS + 100)
        self.documents.open_space(KEY)
        self.history = History(self.documents)
        if root_id is not None:
            self.documents.set_root(SPACE, root_id)

    @property
    def shared(self) -> dict[str, Any]:
        return self.documents.get(SPACE, [SHARED])[0].row.data

    @property
    def has_own(self) -> bool:
        return self.field in self.shared

    @property
    def field(self) -> str:
        return f"peer{self.number}"

    def edit(self, actions: tuple[Action, ...], marks: Iterator[int], *, in_pieces: bool) -> None:
        """Do it, as one turn."""
        made, own = Marks(), self.has_own
        edits: list[ObjectEdit] = []
        for one in actions:
            mark = next(marks)
            edit: Mutation
            match one.what:
                case "element":
                    made.elements.append(mark)
                    edit = Insert(("elements",), min(one.at, len(self.shared["elements"])), (mark,))
                case "character":
                    made.characters.append(chr(_FIRST_CHARACTER + mark))
                    edit = Splice(("text",), min(one.at, len(self.shared["text"])), 0, made.characters[-1])
                case "put":
                    made.own.append(mark)
                    own, edit = True, Put((self.field,), mark)
                case "delete" if own:
                    made.own.append(None)
                    own, edit = False, Delete((self.field,))
                case "object":
                    id_ = make_object_id(START_MS + 2, mark.to_bytes(10, "big"))
                    made.objects.append(id_)
                    edits.append(ObjectEdit(id_, ObjectRow(id_, data={"mark": mark})))
                    continue
                case _:
                    edit = Put(("contested",), mark)
            edits.append(ObjectEdit(SHARED, mutations=(edit,)))
        step = self.documents.begin_step() if in_pieces else None
        for piece in [[one] for one in edits] if in_pieces else [edits]:
            self.documents.update(SPACE, piece, step=step)
        self.done.append(made)
        self.undone.clear()

    def reverse(self, *, redo: bool) -> None:
        """Undo or redo what was last."""
        source, target = (self.undone, self.done) if redo else (self.done, self.undone)
        found = list((self.history.redo if redo else self.history.undo)(SPACE))
        assert bool(found) is bool(source)
        if source:
            target.append(source.pop())

    def tell(self, other: "Peer") -> None:
        """Give another peer all that it lacks."""
        for document_id, heads in self.documents.documents(SPACE).items():
            known = other.documents.entry(document_id)
            if known is not None and known.heads == heads:
                continue
            copy = Document.load(self.documents.load(document_id).save())
            if known is None:
                other.documents.received(document_id, SPACE, copy, ())
                continue
            document = other.documents.load(document_id)
            document.merge(copy)
            if document.heads != known.heads:
                other.documents.received(document_id, SPACE, document, known.heads)

    def rows(self) -> list[ObjectRow]:
        found = self.documents.select(SPACE, Query(deleted="include"))
        return sorted((one.row for one in found), key=lambda row: row.object_id)


def begin(profiles: list[Profile]) -> tuple[list[Peer], str]:
    """Peers that have the same space, and the id of its root; who made it takes no part, and undoes nothing."""
    maker, *peers = [Peer(number, profile) for number, profile in enumerate(profiles)]
    root_id = maker.documents.create_root(SPACE, ObjectStructure({"name": "All"}, layout.PROPERTIES_TYPE), NAME)
    row = ObjectRow(SHARED, data={"elements": [], "text": "", "contested": 0})
    maker.documents.update(SPACE, [ObjectEdit(SHARED, row)])
    for one in peers:
        one.documents.set_root(SPACE, root_id)
        maker.tell(one)
    return peers, root_id


@pytest.mark.slow
@pytest.mark.timeout(0 if EXAMPLES > 100 else 60)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps_)
def test_each_takes_back_its_own_changes_and_no_others(steps: list[Edit | Reverse | Meet | Restart]) -> None:
    profiles = [Profile.open(None) for _ in range(1 + PEERS)]
    try:
        peers, root_id = begin(profiles)
        marks = iter(range(1, 10_000))
        for step in steps:
            peer = peers[step.peer]
            match step:
                case Edit():
                    peer.edit(step.actions, marks, in_pieces=step.in_pieces)
                case Reverse():
                    peer.reverse(redo=step.redo)
                case Meet():
                    if step.other != step.peer:
                        peer.tell(peers[step.other])
                        peers[step.other].tell(peer)
                case Restart():
                    peer.restart(root_id)
        # To the last and back, so that each hears of all.
        for source, target in [(0, 1), (1, 2), (2, 1), (1, 0)]:
            peers[source].tell(peers[target])
        rows = peers[0].rows()
        assert all(one.rows() == rows for one in peers)
        check(peers, rows)
    finally:
        for profile in profiles:
            profile.close()


def check(peers: list[Peer], rows: list[ObjectRow]) -> None:
    """All marks that were made and not undone are there, each once, and no others."""
    done = [made for one in peers for made in one.done]
    shared = next(row.data for row in rows if row.object_id == SHARED)
    assert sorted(shared["elements"]) == sorted(mark for made in done for mark in made.elements)
    assert sorted(shared["text"]) == sorted(mark for made in done for mark in made.characters)
    present = {row.object_id for row in rows if not row.deleted} - {NAME, SHARED}
    assert present == {mark for made in done for mark in made.objects}
    for one in peers:
        values = [value for made in one.done for value in made.own]
        assert shared.get(one.field) == (values[-1] if values else None)
