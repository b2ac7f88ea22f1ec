"""All invitations of one profile: those it made, found again after a restart, and those it redeems."""

import logging
from collections.abc import Callable
from typing import TypeVar, final

from anyio.abc import TaskGroup
from msgspec import Struct
from msgspec.structs import replace

from dxos.aio import Listeners, Subscription
from dxos.errors import DxosError, InvitationExpiredError, StorageError, UsageError
from dxos.halo.invitation import Invitation, InvitationState
from dxos.limits import INVITATION_LIFETIME_S_MAX, INVITATIONS_OPEN_MAX
from dxos.mesh.network import Network
from dxos.spaces.invitation_guest import AcceptedInvitation
from dxos.spaces.invitation_handshake import Admissions, InvitationUpdate, Party, Updates
from dxos.spaces.invitation_host import HostedInvitation, fill_in, read_record, verdict
from dxos.store.invitations import InvitationRecord, InvitationStore
from dxos.wire import encode

_log = logging.getLogger(__name__)
P = TypeVar("P", bound=Party)


@final
class InvitationsState(Struct, frozen=True):
    """All invitations that are not over."""

    created: tuple[Invitation, ...] = ()
    accepted: tuple[Invitation, ...] = ()


@final
class Invitations:
    """The invitations of one profile.

    Args:
        store: Where those made here are kept.
        network: Where hosts and guests meet.
        admissions: What the rest of the profile has to say.
        tasks: Where open invitations run.
        random: Gives that many random bytes, good enough for secrets.
        now_ms: Unix time in milliseconds.
    """

    def __init__(
        self,
        store: InvitationStore,
        network: Network,
        admissions: Admissions,
        tasks: TaskGroup,
        *,
        random: Callable[[int], bytes],
        now_ms: Callable[[], int],
    ) -> None:
        self._store, self._network, self._admissions, self._tasks = store, network, admissions, tasks
        self._random, self._now_ms = random, now_ms
        self._created: dict[str, HostedInvitation] = {}
        self._accepted: dict[str, AcceptedInvitation] = {}
        self._listeners: Listeners[InvitationsState] = Listeners()

    def resume(self) -> None:
        """Host again what was hosted when the process ended; forget what is long over."""
        try:
            found = self._store.ids()
        except StorageError:
            _log.exception("open invitations could not be read; their codes admit nobody")
            return
        for invitation_id in found:
            try:
                record = self._store.get(invitation_id)
                if record is not None:
                    self._resume(record)
            except StorageError as error:
                _log.error("invitation %.8s admits nobody any more; see `dx doctor`: %s", invitation_id, error)

    def state(self) -> InvitationsState:
        """All that are not over."""
        return InvitationsState(
            tuple(one.updates.present.invitation for one in self._created.values()),
            tuple(one.updates.present.invitation for one in self._accepted.values()),
        )

    def subscribe(self, next: Callable[[InvitationsState], None]) -> Subscription:
        """Call `next` with the present state, and after each change of any invitation."""
        subscription = self._listeners.subscribe(next)
        next(self.state())
        return subscription

    def create(self, invitation: Invitation, next: Callable[[InvitationUpdate], None]) -> Subscription:
        """Host an invitation; what was left open gets its default. The id of a known one means that one.

        It is on the disk before `next` is called with its codes. What goes wrong is an update with state ERROR.
        Unsubscribing does not cancel it.
        """
        known = self._created.get(invitation.invitation_id)
        return (known.updates if known is not None else self._create(invitation)).follow(next)

    def accept(self, invitation: Invitation, next: Callable[[InvitationUpdate], None]) -> Subscription:
        """Redeem an invitation, or follow how it is redeemed already; errors are updates."""
        known = self._accepted.get(invitation.invitation_id)
        return (known.updates if known is not None else self._accept(invitation)).follow(next)

    def authenticate(self, invitation_id: str, auth_code: str) -> None:
        """Hand in the authentication code of an invitation that is being redeemed, also before it is needed.

        Raises:
            UsageError: No such invitation is being redeemed.
        """
        accepted = self._accepted.get(invitation_id)
        if accepted is None:
            raise UsageError("No such invitation is being accepted.", invitation_id=invitation_id[:8])
        accepted.authenticate(auth_code)

    async def cancel(self, invitation_id: str) -> None:
        """End an invitation on either side, also over restarts; harmless if it is over or unknown.

        Returns once the other side was told, if it is there. Cancelling this call takes nothing back.
        """
        for party in (self._created.get(invitation_id), self._accepted.get(invitation_id)):
            if party is not None:
                await party.cancel()

    def _create(self, wanted: Invitation) -> Updates:
        try:
            record = self._store.get(wanted.invitation_id)
            if record is not None:
                return self._known(record)
            self._check_room()
            space_key, space_id = self._admissions.check_can_invite(wanted)
            invitation = fill_in(
                replace(wanted, space_key=space_key, space_id=space_id), random=self._random, now_ms=self._now_ms()
            )
            hosted = self._hosted(invitation)
            hosted.save()
        except DxosError as error:
            failed = replace(wanted, state=InvitationState.ERROR)
            return Updates(InvitationUpdate(failed, error, done=True))
        return self._start(hosted, self._created)

    def _known(self, record: InvitationRecord) -> Updates:
        over = verdict(record, now_ms=self._now_ms())
        if over is not None:
            return Updates(over)
        return self._start(self._hosted(read_record(record), record.attempts), self._created)

    def _resume(self, record: InvitationRecord) -> None:
        invitation = read_record(record)
        over = verdict(record, now_ms=self._now_ms())
        if over is None:
            if invitation.persistent:  # Or only if a client that has outlived its host asks for it.
                self._start(self._hosted(invitation, record.attempts), self._created)
        elif self._now_ms() / 1000 > record.created_s + INVITATION_LIFETIME_S_MAX:
            self._store.delete(record.invitation_id)
        elif over.invitation.state is not invitation.state:
            self._store.put(
                replace(record, record=encode(over.invitation.to_message()), state=over.invitation.state.name)
            )

    def _hosted(self, invitation: Invitation, failures: int = 0) -> HostedInvitation:
        return HostedInvitation(
            invitation,
            store=self._store,
            network=self._network,
            admissions=self._admissions,
            random=self._random,
            now_ms=self._now_ms,
            failures=failures,
        )

    def _accept(self, invitation: Invitation) -> Updates:
        accepted = AcceptedInvitation(
            invitation, network=self._network, admissions=self._admissions, now_ms=self._now_ms
        )
        try:
            self._check_room()
            accepted.check()
        except DxosError as error:
            is_expired = isinstance(error, InvitationExpiredError)
            accepted.finish(InvitationState.EXPIRED if is_expired else InvitationState.ERROR, error)
            accepted.give_up()
            return accepted.updates
        return self._start(accepted, self._accepted)

    def _start(self, party: P, among: dict[str, P]) -> Updates:
        invitation_id = party.invitation.invitation_id

        def changed(update: InvitationUpdate) -> None:
            if update.done:
                among.pop(invitation_id, None)
            self._listeners.emit(self.state())

        among[invitation_id] = party
        party.updates.follow(changed)
        self._tasks.start_soon(party.run, name=f"invitation {invitation_id[:8]}")
        return party.updates

    def _check_room(self) -> None:
        if len(self._created) + len(self._accepted) >= INVITATIONS_OPEN_MAX:
            raise UsageError("Too many open invitations; cancel some.", open_max=INVITATIONS_OPEN_MAX)

    def __repr__(self) -> str:
        return f"<Invitations created={len(self._created)} accepted={len(self._accepted)}>"
