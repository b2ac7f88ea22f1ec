"""Who is a member of a space, in what role: a graph of SpaceMember credentials and its one reading.

Each credential names as parents the heads its issuer knew. Members act without asking each other, so the graph
branches; every peer must read the same members from the same credentials, in whatever order they arrived.

    genesis ─┬─ A admits B ─── B removes C ──┐
             └─ A admits C ─── C admits D    └─ (the heads: merged when read)

Invariants:
    1. The reading is a function of the set of credentials: not of their order, not of the clock.
    2. Nobody changes the own role. Only the space's key makes an OWNER; nothing takes the role from one.
    3. A credential counts if its issuer was OWNER or ADMIN in what its parents say.
    4. Whoever is removed or demoted loses what it did beside that, in branches that did not know, except that
       removals and demotions stand: two admins who remove each other are both out, and the OWNER decides.
    5. Where branches disagree about a member, the branch that knows the other's credential wins; then the OWNER's
       word; then the branch with more issuers; then the later date; then the higher id.
    6. Credentials from before there were parents form one line, by date.

Rules 1 to 3, 5 and 6 give what 0.8.3 gives in the cases its tests name. It differs where its own result depends on the
order of arrival: two mutual removals void each other there, or the later arrival is ignored.
"""

from collections.abc import Iterable, Iterator, Mapping
from heapq import heappop, heappush
from itertools import pairwise
from typing import Final, final

from msgspec import Struct

from dxos.errors import LimitError
from dxos.halo.credential import issuer_of, subject_of
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.limits import CREDENTIALS_EARLY_MAX, PARENTS_MAX
from dxos.wire import from_key, from_timestamp
from dxos.wire.proto.credentials_pb2 import Credential, SpaceMember

_REVOKING: Final = frozenset({SpaceRole.REMOVED, SpaceRole.READER, SpaceRole.EDITOR})


@final
class MemberUpdate(Struct, frozen=True):
    """One SpaceMember credential."""

    id: PublicKey  # 32 bytes.
    issuer: PublicKey
    subject: PublicKey  # The identity whose role it sets.
    role: SpaceRole
    issued_ms: int  # What the issuer claims, Unix time in milliseconds.
    parents: tuple[PublicKey, ...]  # Ids.
    credential: Credential
    assertion: SpaceMember

    @classmethod
    def of(cls, id: PublicKey, credential: Credential, assertion: SpaceMember) -> "MemberUpdate":
        """Read a verified credential.

        Args:
            id: As `verify_credential` returned it.
            credential: The credential.
            assertion: What it claims.

        Raises:
            DecodeError: An unknown role.
        """
        return cls(
            id=id,
            issuer=issuer_of(credential),
            subject=subject_of(credential),
            role=SpaceRole.from_wire(assertion.role),
            issued_ms=from_timestamp(credential.issuance_date),
            parents=tuple(sorted({from_key(parent) for parent in credential.parent_credential_ids})),
            credential=credential,
            assertion=assertion,
        )

    @property
    def rank(self) -> tuple[int, PublicKey]:
        """By which credentials are put in line where nothing else does."""
        return (self.issued_ms, self.id)


@final
class MemberGraph:
    """The membership of one space; add credentials, then read roles and heads."""

    def __init__(self, space_key: PublicKey) -> None:
        self._space_key = space_key
        self._updates: dict[PublicKey, MemberUpdate] = {}
        # Those whose parents have not all arrived.
        self._early: dict[PublicKey, MemberUpdate] = {}
        self._leaves: set[PublicKey] = set()
        self._reading: _Reading | None = None

    def add(self, update: MemberUpdate) -> bool:
        """Take in a verified credential; whether it, or one that waited for it, joined the graph.

        Raises:
            LimitError: Too many wait for credentials they build on.
        """
        if update.id in self._updates or update.id in self._early:
            return False
        if not self._is_ready(update):
            if len(self._early) >= CREDENTIALS_EARLY_MAX:
                raise LimitError("Too many credentials build on unknown ones.", count_max=CREDENTIALS_EARLY_MAX)
            self._early[update.id] = update
            return False
        self._insert(update)
        ready = [update]
        while self._early and ready:
            ready = [early for early in self._early.values() if self._is_ready(early)]
            for early in ready:
                del self._early[early.id]
                self._insert(early)
        return True

    def _is_ready(self, update: MemberUpdate) -> bool:
        return all(parent in self._updates for parent in update.parents)

    def _insert(self, update: MemberUpdate) -> None:
        # What the space's key says may change who the owners are, and so all the rest.
        extends = update.issuer != self._space_key and self._leaves == set(update.parents)
        self._updates[update.id] = update
        self._leaves.difference_update(update.parents)
        self._leaves.add(update.id)
        if extends and self._reading is not None:
            self._reading.extend(update)
        else:
            self._reading = None

    def _read(self) -> "_Reading":
        if self._reading is None:
            self._reading = _Reading(self._space_key, self._updates.values())
        return self._reading

    @property
    def members(self) -> Mapping[PublicKey, MemberUpdate]:
        """For each identity the credential that decides its role, REMOVED ones included, in order of admission."""
        return self._read().members()

    @property
    def creator(self) -> PublicKey | None:
        """The first OWNER, or None before the genesis."""
        return next(iter(self._read().owners), None)

    @property
    def heads(self) -> tuple[PublicKey, ...]:
        """The ids that a new SpaceMember credential names as its parents."""
        return self._read().heads()

    def role(self, member: PublicKey) -> SpaceRole:
        """The identity's role; REMOVED if it never was a member."""
        reading = self._read()
        if member in reading.owners:
            return SpaceRole.OWNER
        update = reading.state.get(member)
        return SpaceRole.REMOVED if update is None else update.role

    def may_admit(self, issuer: PublicKey) -> bool:
        """Whether the key may change roles now: the space's own key, an OWNER or an ADMIN."""
        return issuer == self._space_key or self.role(issuer).may_admit

    def was_member(self, identity_key: PublicKey) -> bool:
        """Whether the identity is, or ever was, a member."""
        return self._read().was_member(identity_key)

    def is_accepted(self, id: PublicKey) -> bool:
        """Whether a credential has joined the graph and counts (rules 2 to 4)."""
        return self._read().is_accepted(id)

    def __iter__(self) -> Iterator[MemberUpdate]:
        return iter(self._updates.values())

    def __len__(self) -> int:
        return len(self._updates)

    def __repr__(self) -> str:
        return f"<MemberGraph {self._space_key.truncate()} updates={len(self._updates)} early={len(self._early)}>"


_State = dict[PublicKey, MemberUpdate]


class _Reading:
    """What a set of credentials says. Sets of credentials are bit masks over their positions in line."""

    def __init__(self, space_key: PublicKey, updates: Iterable[MemberUpdate]) -> None:
        self._space_key = space_key
        self._line, parents = _in_line(updates)
        self._index = {update.id: index for index, update in enumerate(self._line)}
        self._parents = [[self._index[parent] for parent in parents[update.id]] for update in self._line]
        self.owners = _owners(space_key, self._line)
        # Of each update: itself and all it builds on.
        self._pasts: list[int] = []
        for index, above in enumerate(self._parents):
            past = 1 << index
            for parent in above:
                past |= self._pasts[parent]
            self._pasts.append(past)
        self._issued: dict[PublicKey, int] = {}
        for index, update in enumerate(self._line):
            self._issued[update.issuer] = self._issued.get(update.issuer, 0) | 1 << index
        self._void = 0
        self._accepted = 0
        self._revoking = 0  # Removals, and demotions of those who could admit.
        self._firsts: dict[PublicKey, None] = {}
        self.state: _State = {}
        # Each round voids at least one more update, or is the last.
        while self._walk():
            pass

    def extend(self, update: MemberUpdate) -> None:
        """Add an update that builds on all others: it can void none, and its parents' state is what was read."""
        index = len(self._line)
        self._line.append(update)
        self._index[update.id] = index
        self._parents.append([self._index[parent] for parent in update.parents])
        self._pasts.append((1 << index + 1) - 1)
        self._issued[update.issuer] = self._issued.get(update.issuer, 0) | 1 << index
        self._apply(index, self.state)

    def is_accepted(self, id: PublicKey) -> bool:
        index = self._index.get(id)
        return index is not None and bool(self._accepted >> index & 1)

    def was_member(self, identity_key: PublicKey) -> bool:
        return identity_key in self._firsts

    def members(self) -> _State:
        return {subject: self.state[subject] for subject in self._firsts if subject in self.state}

    def heads(self) -> tuple[PublicKey, ...]:
        """The last updates that every 0.8.3 peer has too: it forgets those whose issuer may not admit any more."""
        covered = 0
        heads = []
        for index in reversed(range(len(self._line))):
            update = self._line[index]
            if covered >> index & 1 or not self._accepted >> index & 1 or not self._may_admit(update.issuer):
                continue
            covered |= self._pasts[index]
            heads.append(update.id)
        return tuple(sorted(heads[:PARENTS_MAX]))

    def _may_admit(self, issuer: PublicKey) -> bool:
        if issuer == self._space_key or issuer in self.owners:
            return True
        known = self.state.get(issuer)
        return known is not None and known.role.may_admit

    def _walk(self) -> bool:
        """Read the line once; whether an update was voided, so that it must be read again."""
        self._accepted = self._revoking = 0
        self._firsts = {}
        revoked: list[tuple[int, int]] = []
        states: dict[int, _State] = {}
        waiting = [0] * len(self._line)  # Children that still need the state.
        for above in self._parents:
            for parent in above:
                waiting[parent] += 1
        leaves = [index for index, count in enumerate(waiting) if count == 0]
        for index, above in enumerate(self._parents):
            state = self._merge(above, states)
            if len(above) > 1:
                revoked += self._revoked_in(state, self._union(above))
            for parent in above:
                waiting[parent] -= 1
                if waiting[parent] == 0:
                    del states[parent]
            self._apply(index, state)
            states[index] = state
        self.state = self._merge(leaves, states)
        revoked += self._revoked_in(self.state, self._union(leaves))
        doomed = self._union_of(index for _, index in revoked)
        # A revocation that may itself turn out to be without authority waits for the next round; where all wait for
        # each other, all hold.
        firm = self._union_of(index for revocation, index in revoked if not self._pasts[revocation] & doomed)
        self._void |= firm or doomed
        return bool(doomed)

    @staticmethod
    def _union_of(indexes: Iterable[int]) -> int:
        union = 0
        for index in indexes:
            union |= 1 << index
        return union

    def _union(self, indexes: Iterable[int]) -> int:
        union = 0
        for index in indexes:
            union |= self._pasts[index]
        return union

    def _apply(self, index: int, state: _State) -> None:
        update = self._line[index]
        if self._void >> index & 1 or not self._is_allowed(update, state):
            return
        self._accepted |= 1 << index
        before = state.get(update.subject)
        if update.role is SpaceRole.REMOVED or (
            before is not None and before.role.may_admit and not update.role.may_admit
        ):
            self._revoking |= 1 << index
        if update.role.is_member:
            self._firsts.setdefault(update.subject)
        state[update.subject] = update

    def _is_allowed(self, update: MemberUpdate, state: _State) -> bool:
        """Rules 2 and 3."""
        if update.role is SpaceRole.INVALID or update.issuer == update.subject:
            return False
        if update.issuer == self._space_key:
            # Of the owners' roles the space's key may write what they are, not take them away.
            return update.subject not in self.owners or update.role.may_admit
        if update.role is SpaceRole.OWNER or update.subject in self.owners:
            return False
        if update.issuer in self.owners:
            return True
        known = state.get(update.issuer)
        return known is not None and known.role.may_admit

    def _revoked_in(self, state: _State, known: int) -> list[tuple[int, int]]:
        """Rule 4, where branches meet: each revocation in `state`, with what its subject did beside it."""
        revoked = []
        for subject, update in state.items():
            if update.role not in _REVOKING or subject in self.owners:
                continue
            at = self._index[update.id]
            for index in _bits(self._issued.get(subject, 0) & known & self._accepted & ~self._pasts[at]):
                if not self._revoking >> index & 1 and not self._pasts[index] >> at & 1:
                    revoked.append((at, index))
        return revoked

    def _merge(self, branches: list[int], states: Mapping[int, _State]) -> _State:
        """Rule 5: one state of several branches, each given by its last update."""
        if not branches:
            return {}
        branches = sorted(branches, key=lambda index: self._line[index].rank)
        merged = dict(states[branches[0]])
        source = dict.fromkeys(merged, branches[0])
        for branch in branches[1:]:
            for subject, candidate in states[branch].items():
                existing = merged.get(subject)
                if existing is candidate:
                    continue
                if existing is None or self._wins(candidate, branch, existing, source[subject]):
                    merged[subject] = candidate
                    source[subject] = branch
        return merged

    def _wins(self, candidate: MemberUpdate, branch: int, existing: MemberUpdate, other_branch: int) -> bool:
        past, other_past = self._pasts[branch], self._pasts[other_branch]
        knows = bool(past >> self._index[existing.id] & 1)
        is_known = bool(other_past >> self._index[candidate.id] & 1)
        if knows != is_known:
            return knows
        by_owner, existing_by_owner = self._is_final(candidate.issuer), self._is_final(existing.issuer)
        if by_owner != existing_by_owner:
            return by_owner
        issuers, other_issuers = self._issuers(past & ~other_past), self._issuers(other_past & ~past)
        if issuers != other_issuers:
            return issuers > other_issuers
        return existing.rank < candidate.rank

    def _is_final(self, issuer: PublicKey) -> bool:
        return issuer == self._space_key or issuer in self.owners

    def _issuers(self, updates: int) -> int:
        """How many identities issued those of the updates that count."""
        return len({self._line[index].issuer for index in _bits(updates & self._accepted)})


def _bits(mask: int) -> Iterator[int]:
    """The positions of a mask's bits, lowest first."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def _owners(space_key: PublicKey, updates: list[MemberUpdate]) -> dict[PublicKey, None]:
    """Those the space's key made OWNER; where it did not, in spaces of before that role, its first member."""
    by_space = sorted((update for update in updates if update.issuer == space_key), key=lambda update: update.rank)
    owners = dict.fromkeys(update.subject for update in by_space if update.role is SpaceRole.OWNER)
    if not owners:
        owners = dict.fromkeys(update.subject for update in by_space[:1])
    return owners


def _in_line(updates: Iterable[MemberUpdate]) -> tuple[list[MemberUpdate], dict[PublicKey, tuple[PublicKey, ...]]]:
    """All updates, each after its parents, else by rank; and the parents, with those of rule 6."""
    ranked = sorted(updates, key=lambda update: update.rank)
    parents = {update.id: update.parents for update in ranked}
    roots = [update.id for update in ranked if not update.parents]
    for before, after in pairwise(roots):
        parents[after] = (before,)
    # Whatever builds on all others comes last, so that it can be added to a reading of them.
    by_id = {update.id: update for update in ranked}
    children: dict[PublicKey, list[PublicKey]] = {update.id: [] for update in ranked}
    missing = {each: len(above) for each, above in parents.items()}
    for each, above in parents.items():
        for parent in above:
            children[parent].append(each)
    ready = [update.rank for update in ranked if not missing[update.id]]  # Sorted, so it is a heap.
    line: list[MemberUpdate] = []
    while ready:
        _, first = heappop(ready)
        line.append(by_id[first])
        for child in children[first]:
            missing[child] -= 1
            if not missing[child]:
                heappush(ready, by_id[child].rank)
    return line, parents
