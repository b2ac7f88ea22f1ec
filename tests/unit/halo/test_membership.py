"""Stories of one space's membership; the names of many are those of 0.8.3's own tests of the same cases."""

from itertools import permutations

import pytest
from halo_people import SPACE, named, update

from dxos.errors import LimitError
from dxos.halo import membership
from dxos.halo.membership import MemberGraph, MemberUpdate
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey

A, B, C, D, E, F, G, H, I, J, K, L = (named(letter) for letter in "ABCDEFGHIJKL")  # noqa: E741
OWNER, ADMIN, EDITOR, READER, REMOVED = (
    SpaceRole.OWNER,
    SpaceRole.ADMIN,
    SpaceRole.EDITOR,
    SpaceRole.READER,
    SpaceRole.REMOVED,
)


class Story:
    """Credentials told one after the other."""

    def __init__(self) -> None:
        self.graph = MemberGraph(SPACE)
        self.told: list[MemberUpdate] = []

    def create(self, owner: PublicKey) -> PublicKey:
        return self.tell(SPACE, owner, OWNER)

    def tell(self, issuer: PublicKey, subject: PublicKey, role: SpaceRole, *parents: PublicKey) -> PublicKey:
        told = update(issuer, subject, role, parents)
        self.told.append(told)
        self.graph.add(told)
        return told.id

    def admit(self, issuer: PublicKey, subject: PublicKey, *parents: PublicKey) -> PublicKey:
        return self.tell(issuer, subject, ADMIN, *parents)

    def remove(self, issuer: PublicKey, subject: PublicKey, *parents: PublicKey) -> PublicKey:
        return self.tell(issuer, subject, REMOVED, *parents)

    def expect(self, **roles: SpaceRole) -> None:
        """The roles hold, and in other orders of arrival too."""
        shuffles = [self.told, self.told[::-1], sorted(self.told, key=lambda told: told.id)]
        if len(self.told) <= 4:
            shuffles += [list(order) for order in permutations(self.told)]
        for order in shuffles:
            graph = MemberGraph(SPACE)
            for told in order:
                graph.add(told)
            assert {name: graph.role(named(name)) for name in roles} == roles
            assert graph.heads == self.graph.heads
            assert list(graph.members.items()) == list(self.graph.members.items())
        assert {name: self.graph.role(named(name)) for name in roles} == roles


def test_old_credentials_without_parents_are_read_in_the_order_of_their_dates() -> None:
    story = Story()
    story.admit(SPACE, A)
    story.admit(A, B)
    story.admit(B, C)
    story.admit(D, E)
    story.expect(A=OWNER, B=ADMIN, C=ADMIN, D=REMOVED, E=REMOVED)


def test_the_first_member_is_the_owner_where_no_credential_says_so() -> None:
    story = Story()
    story.admit(SPACE, A)
    story.admit(SPACE, B)
    story.expect(A=OWNER, B=ADMIN)
    assert story.graph.creator == A


def test_an_owner_cannot_be_removed() -> None:
    story = Story()
    created = story.create(A)
    story.remove(B, A, story.admit(A, B, created))
    story.expect(A=OWNER, B=ADMIN)
    assert story.graph.members[A].role is OWNER


def test_an_implicit_owner_cannot_be_removed() -> None:
    story = Story()
    story.admit(SPACE, A)
    story.remove(B, A, story.admit(SPACE, B))
    story.expect(A=OWNER, B=ADMIN)


@pytest.mark.parametrize("role", [ADMIN, EDITOR, READER, REMOVED])
def test_an_owner_cannot_be_demoted_by_anyone(role: SpaceRole) -> None:
    story = Story()
    created = story.create(A)
    admitted = story.admit(A, B, created)
    story.tell(B, A, role, admitted)
    story.tell(A, A, role, admitted)
    story.expect(A=OWNER, B=ADMIN)


def test_only_the_space_makes_an_owner() -> None:
    story = Story()
    created = story.create(A)
    story.tell(A, B, OWNER, created)
    story.expect(A=OWNER, B=REMOVED)


def test_a_credential_of_somebody_who_is_no_member_is_ignored() -> None:
    story = Story()
    story.admit(B, C, story.create(A))
    story.expect(A=OWNER, B=REMOVED, C=REMOVED)


@pytest.mark.parametrize("role", [EDITOR, READER])
def test_an_admission_by_somebody_who_is_no_admin_is_ignored(role: SpaceRole) -> None:
    story = Story()
    admitted = story.tell(A, B, role, story.create(A))
    story.admit(B, C, admitted)
    story.expect(A=OWNER, B=role, C=REMOVED)
    assert story.graph.heads == (admitted,)


def test_nobody_changes_the_own_role() -> None:
    story = Story()
    admitted = story.admit(A, B, story.create(A))
    story.tell(B, B, EDITOR, admitted)
    story.tell(C, C, ADMIN, admitted)
    story.expect(A=OWNER, B=ADMIN, C=REMOVED)


def test_an_editor_cannot_promote_itself_through_a_friend_outside() -> None:
    story = Story()
    admitted = story.tell(A, B, EDITOR, story.create(A))
    outside = story.admit(B, C, admitted)
    story.admit(C, B, outside)
    story.expect(B=EDITOR, C=REMOVED)


def test_branches_at_the_end_are_merged() -> None:
    story = Story()
    created = story.create(A)
    heads = {story.admit(A, guest, created) for guest in (B, C, D)}
    story.expect(A=OWNER, B=ADMIN, C=ADMIN, D=ADMIN)
    assert set(story.graph.heads) == heads


def test_branches_in_the_middle_are_merged() -> None:
    story = Story()
    created = story.create(A)
    last = story.admit(D, E, *(story.admit(A, guest, created) for guest in (B, C, D)))
    story.expect(A=OWNER, B=ADMIN, C=ADMIN, D=ADMIN, E=ADMIN)
    assert story.graph.heads == (last,)


def test_an_admission_beside_its_issuers_removal_is_void_and_one_before_it_stands() -> None:
    story = Story()
    b = story.admit(A, B, story.create(A))
    c = story.admit(A, C, b)
    e = story.admit(C, E, c)
    story.admit(C, D, c)
    story.remove(B, C, e)
    story.expect(B=ADMIN, E=ADMIN, C=REMOVED, D=REMOVED)


def test_who_was_admitted_in_two_branches_is_a_member_though_one_is_discarded() -> None:
    story = Story()
    b = story.admit(A, B, story.create(A))
    c = story.admit(A, C, b)
    story.admit(A, D, story.remove(B, C, c))
    story.admit(A, E, c)
    story.admit(C, E, c)
    story.expect(A=OWNER, B=ADMIN, D=ADMIN, E=ADMIN, C=REMOVED)


def test_an_admission_is_discarded_but_not_the_next_by_somebody_else() -> None:
    story = Story()
    b = story.admit(A, B, story.create(A))
    c = story.admit(A, C, b)
    e = story.admit(C, E, c)
    d = story.admit(C, D, c)
    story.remove(B, C, e)
    story.admit(A, F, d)
    story.expect(B=ADMIN, E=ADMIN, F=ADMIN, C=REMOVED, D=REMOVED)


def test_the_branch_with_more_issuers_decides() -> None:
    story = Story()
    created = story.create(A)
    b = story.admit(A, B, created)
    c = story.admit(A, C, created)
    story.admit(C, E, c)
    story.admit(C, D, c)
    story.admit(B, F, b)
    g = story.admit(B, G, story.remove(A, C, b))
    story.admit(G, H, g)
    story.expect(A=OWNER, B=ADMIN, C=REMOVED, D=REMOVED, E=REMOVED, F=ADMIN, H=ADMIN)


def test_a_removal_is_undone_when_its_issuer_turns_out_never_to_have_been_admitted() -> None:
    story = Story()
    b = story.admit(A, B, story.create(A))
    c = story.admit(A, C, b)
    f = story.admit(B, F, c)
    e = story.admit(C, E, c)
    story.admit(E, H, story.remove(E, F, e), f)
    story.expect(A=OWNER, B=ADMIN, C=ADMIN, E=ADMIN, F=REMOVED)
    d = story.admit(A, D, story.remove(B, C, c))
    story.admit(G, I, story.admit(D, G, d))
    story.expect(A=OWNER, B=ADMIN, F=ADMIN, E=REMOVED, C=REMOVED)


def test_a_removal_in_a_discarded_branch_does_not_count() -> None:
    story = Story()
    b = story.admit(A, B, story.create(A))
    c = story.admit(A, C, b)
    story.remove(E, F, story.admit(C, E, c))
    story.admit(A, F, c)
    d = story.admit(A, D, story.remove(B, C, c))
    story.admit(G, H, story.admit(D, G, d))
    story.expect(A=OWNER, B=ADMIN, F=ADMIN, E=REMOVED, C=REMOVED)


def test_an_admission_is_void_because_its_issuer_was_removed_in_a_longer_branch() -> None:
    story = Story()
    created = story.create(A)
    b = story.admit(A, B, created)
    c = story.admit(A, C, created)
    e = story.admit(B, E, b)
    story.admit(C, D, c)
    story.remove(E, C, e, c)
    story.expect(A=OWNER, B=ADMIN, E=ADMIN, C=REMOVED, D=REMOVED)


def test_an_admission_is_void_because_its_issuer_was_removed_beside_it() -> None:
    story = Story()
    created = story.create(A)
    b = story.admit(A, B, created)
    c = story.admit(A, C, created)
    story.admit(C, D, b, c)
    story.remove(B, C, b, c)
    story.expect(A=OWNER, B=ADMIN, C=REMOVED, D=REMOVED)


def test_two_branches_with_conflicts_inside_give_the_same_whichever_comes_first() -> None:
    story = Story()
    created = story.create(A)
    b = story.admit(A, B, created)
    e = story.admit(C, E, story.admit(B, C, b))
    d = story.admit(B, D, b)
    left = story.admit(D, F, d)
    story.remove(E, D, d, e)
    g = story.admit(A, G, created)
    story.admit(K, L, story.admit(G, K, g))
    right = story.admit(I, J, story.admit(H, I, story.admit(G, H, g)))
    story.remove(J, K, left, right)
    story.expect(A=OWNER, B=ADMIN, C=ADMIN, E=ADMIN, G=ADMIN, H=ADMIN, I=ADMIN, J=ADMIN)
    story.expect(L=REMOVED, K=REMOVED, D=REMOVED, F=REMOVED)


def test_a_removed_member_can_be_admitted_again() -> None:
    story = Story()
    removed = story.remove(A, B, story.admit(A, B, story.create(A)))
    story.tell(A, B, EDITOR, removed)
    story.expect(B=EDITOR)


def test_what_a_removed_admin_did_beside_the_removal_stays_void_after_readmission() -> None:
    story = Story()
    b = story.admit(A, B, story.create(A))
    c = story.admit(B, C, b)
    removed = story.remove(A, B, b)
    again = story.admit(A, B, removed, c)
    story.expect(B=ADMIN, C=REMOVED)
    story.admit(B, D, again)
    story.expect(B=ADMIN, C=REMOVED, D=ADMIN)


def test_two_admins_who_remove_each_other_are_both_out() -> None:
    story = Story()
    both = story.admit(A, C, story.admit(A, B, story.create(A)))
    story.remove(B, C, both)
    story.remove(C, B, both)
    story.expect(A=OWNER, B=REMOVED, C=REMOVED)


def test_a_removed_admin_cannot_undo_the_removal_from_an_old_head() -> None:
    story = Story()
    both = story.admit(A, C, story.admit(A, B, story.create(A)))
    story.remove(B, C, both)
    story.tell(C, B, EDITOR, both)
    story.admit(C, D, both)
    story.expect(C=REMOVED, D=REMOVED)


def test_the_owners_word_wins_over_an_admins() -> None:
    story = Story()
    b = story.admit(A, B, story.create(A))
    story.tell(A, C, EDITOR, b)
    story.tell(B, C, READER, b)
    story.expect(C=EDITOR)


def test_an_update_waits_for_its_parents() -> None:
    created = update(SPACE, A, OWNER)
    admitted = update(A, B, ADMIN, [created.id])
    graph = MemberGraph(SPACE)
    assert not graph.add(admitted)
    assert graph.role(B) is REMOVED
    assert graph.add(created)
    assert graph.role(B) is ADMIN
    assert not graph.add(created)


def test_updates_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "CREDENTIALS_EARLY_MAX", 2)
    graph = MemberGraph(SPACE)
    for _ in range(2):
        graph.add(update(A, B, ADMIN, [named("unknown")]))
    with pytest.raises(LimitError):
        graph.add(update(A, B, ADMIN, [named("unknown")]))


def test_its_repr_counts() -> None:
    story = Story()
    story.create(A)
    assert repr(story.graph) == f"<MemberGraph {SPACE.truncate()} updates=1 early=0>"


@pytest.mark.parametrize(("first", "second"), [(B, C), (C, B)])
def test_an_early_date_of_what_comes_last_does_not_change_the_order_of_admission(
    first: PublicKey, second: PublicKey
) -> None:
    genesis = update(SPACE, A, OWNER, issued_ms=2)
    admissions = [
        update(A, first, ADMIN, [genesis.id], issued_ms=3),
        update(A, second, ADMIN, [genesis.id], issued_ms=4),
    ]
    last = update(A, D, ADMIN, [one.id for one in admissions], issued_ms=1)
    told = [genesis, *admissions, last]
    read_at_the_end, read_along_the_way = MemberGraph(SPACE), MemberGraph(SPACE)
    for each in told:
        read_at_the_end.add(each)
        read_along_the_way.add(each)
        assert read_along_the_way.heads
    assert list(read_along_the_way.members) == list(read_at_the_end.members) == [A, first, second, D]
