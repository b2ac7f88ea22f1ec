"""Invitations as an application holds them: observables that end, with what can be done about them.

    host    space.create_invitation() ──▶ CancellableInvitation      INIT ▶ CONNECTING ▶ … ▶ SUCCESS
    guest   client.accept_invitation(code) ──▶ AuthenticatingInvitation, with `authenticate`

Both are made without waiting. `await invitation` gives the final value, or raises why there is none; a failure that
nobody awaits is silent, as the states have shown it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final, final

import anyio
from msgspec.structs import replace

from dxos.client.observable import Source
from dxos.errors import (
    AlreadyJoinedError,
    DxosError,
    InvitationCancelledError,
    InvitationError,
    InvitationExpiredError,
    InvitationTimeoutError,
)
from dxos.halo.invitation import (
    AuthMethod,
    Invitation,
    InvitationEncoder,
    InvitationKind,
    InvitationState,
    InvitationType,
)
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.services import contract
from dxos.services.contract import InvitationsService, InvitationsState, InvitationUpdate

_ID_BYTES: Final = 32
_WITH_HOST: Final = (
    InvitationState.CONNECTED,
    InvitationState.READY_FOR_AUTHENTICATION,
    InvitationState.AUTHENTICATING,
)
_MS_PER_S: Final = 1_000


class CancellableInvitation(Source[Invitation]):
    """One invitation, as its states change; ends after SUCCESS, or with the error that says why not."""

    def __init__(self, service: InvitationsService, invitation: Invitation) -> None:
        super().__init__(invitation)
        self._service = service
        self._update = InvitationUpdate(invitation)
        self._verdicts = 0  # How many codes were answered, rightly or wrongly.
        self._stream: contract.Subscription | None = None

    @property
    def invitation(self) -> Invitation:
        """The present value."""
        return self.get()

    @property
    def authentication_code(self) -> str | None:
        """The six digits to tell the guest; None until the host has answered, or if none are needed."""
        return self.get().auth_code

    @property
    def code(self) -> str:
        """The invitation as text of letters and digits; the authentication code is not in it."""
        return InvitationEncoder.encode(self.get())

    @property
    def state(self) -> InvitationState:
        """The present state."""
        return self.get().state

    @property
    def failures(self) -> int:
        """Wrong authentication codes so far."""
        return self._update.failures

    @property
    def error(self) -> DxosError | None:
        """Why it ended without a guest, or without this guest."""
        return self._update.error

    @property
    def expired(self) -> bool:
        """Whether its lifetime is over."""
        return self.state is InvitationState.EXPIRED or self.get().is_expired(time.time_ns() // 1_000_000)

    async def cancel(self) -> None:
        """End the invitation; its code admits nobody from now on. Harmless after it ended."""
        if not self._ended:
            await self._service.cancel_invitation(self.get().invitation_id)

    def __await__(self) -> Generator[Any, Any, Invitation]:
        return self._wait_end().__await__()

    async def _wait_end(self) -> Invitation:
        if not self._ended:
            ended = anyio.Event()
            subscription = self.subscribe(_ignore, lambda _: ended.set(), ended.set)
            try:
                await ended.wait()
            finally:
                subscription.unsubscribe()
        if self._error_value is not None:
            raise self._error_value
        return self.get()

    def _follow(self, stream: contract.Subscription) -> None:
        self._stream = stream
        if self._ended:
            stream.unsubscribe()

    def _receive(self, update: InvitationUpdate) -> None:
        before, self._update = self._update, update
        state = update.invitation.state
        refused = (
            before.invitation.state is InvitationState.AUTHENTICATING
            and state is InvitationState.READY_FOR_AUTHENTICATION
        )
        if refused or update.failures > before.failures or update.done:
            self._verdicts += 1
        self._next(update.invitation)
        if update.done:
            error = update.error or _reason(state)
            if error is None:
                self._complete()
            else:
                self._error(error)
            self._leave()

    def _fail(self, error: DxosError) -> None:
        """The client is going away."""
        self._error(error)
        self._leave()

    def _leave(self) -> None:
        if self._stream is not None:
            self._stream.unsubscribe()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.get().invitation_id[:8]} {self.state.name}>"


@final
class AuthenticatingInvitation(CancellableInvitation):
    """The guest's side: an invitation that may want its authentication code.

    `authenticate, invitation = client.accept_invitation(code)` takes it apart as the original's guide does.
    """

    def __init__(self, service: InvitationsService, invitation: Invitation) -> None:
        super().__init__(service, invitation)
        self._beginnings = 0  # How often it had to look for its host again.
        self._has_met = False  # Whether the host was there.

    async def authenticate(self, auth_code: str) -> Invitation:
        """Hand in the authentication code, as soon as the host wants it, and wait for the answer.

        Args:
            auth_code: What the host's user said; any text, and white space around it is dropped.

        Returns:
            The invitation: SUCCESS, or READY_FOR_AUTHENTICATION if the code was wrong and another try is left.

        Raises:
            AuthenticationError: It was wrong too often.
            InvitationError: The invitation ended for another reason.

        Cancelling is safe; a code that was handed in stays so.
        """
        verdicts = self._verdicts
        while not self._ended and self._verdicts == verdicts:
            await self._wait_until(lambda: self.state is InvitationState.READY_FOR_AUTHENTICATION)
            if not self._ended:
                verdicts = self._verdicts
                await self._hand_in(auth_code.strip())
        if self._error_value is not None:
            raise self._error_value
        return self.get()

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition or the end."""
        changed = anyio.Event()

        def look(_: object = None) -> None:
            if condition() or self._ended:
                changed.set()

        subscription = self.subscribe(look, look, look)
        try:
            await changed.wait()
        finally:
            subscription.unsubscribe()

    async def _hand_in(self, auth_code: str) -> None:
        """Hand in the code, and wait for its verdict, or for a new worker, which begins anew without the code."""
        verdicts, beginnings = self._verdicts, self._beginnings
        await self._service.authenticate(self.get().invitation_id, auth_code)
        await self._wait_until(lambda: self._verdicts > verdicts or self._beginnings > beginnings)

    def _receive(self, update: InvitationUpdate) -> None:
        if self._update.invitation.state in _WITH_HOST and update.invitation.state is InvitationState.CONNECTING:
            self._beginnings += 1
        if self._has_met and isinstance(update.error, AlreadyJoinedError):
            # It joined, and whoever was to say so is gone.
            joined = replace(update.invitation, state=InvitationState.SUCCESS)
            update = InvitationUpdate(joined, done=True, failures=update.failures)
        self._has_met = self._has_met or update.invitation.state in _WITH_HOST
        super()._receive(update)

    def __iter__(self) -> Iterator[Any]:
        yield self.authenticate
        yield self.invitation


def _ignore(_: object) -> None:
    pass


def _reason(state: InvitationState) -> DxosError | None:
    """The error of a final state for which the host gave none."""
    match state:
        case InvitationState.CANCELLED:
            return InvitationCancelledError("The invitation was cancelled; ask for a new one.")
        case InvitationState.EXPIRED:
            return InvitationExpiredError("The invitation's lifetime is over; ask for a new one.")
        case InvitationState.TIMEOUT:
            return InvitationTimeoutError("The other side did not answer in time; is it still running?")
        case InvitationState.ERROR:
            return InvitationError("The invitation failed; ask for a new one.")
    return None


@final
class InvitationsProxy:
    """All invitations of a client; the same invitation is the same object."""

    def __init__(self, service: InvitationsService) -> None:
        self._service = service
        self._known: dict[str, CancellableInvitation] = {}
        self._guests: set[AuthenticatingInvitation] = set()
        self._stream: contract.Subscription | None = None
        self.created: Source[tuple[CancellableInvitation, ...]] = Source(())
        self.accepted: Source[tuple[Invitation, ...]] = Source(())

    def open(self) -> None:
        """Follow the host's lists."""
        self._stream = self._service.query_invitations(self._receive)

    def stop(self) -> None:
        """Stop following the host's lists."""
        if self._stream is not None:
            self._stream.unsubscribe()

    def end(self, error: DxosError) -> None:
        """End every invitation that is open here; the host keeps them."""
        for one in (*self._known.values(), *self._guests):
            one._fail(error)
        self._known.clear()
        self._guests.clear()
        self.created._complete()
        self.accepted._complete()

    def create(self, invitation: Invitation) -> CancellableInvitation:
        """Host an invitation, or follow one that is hosted already."""
        known = self._known.get(invitation.invitation_id)
        if known is not None:
            return known
        # Known before the host is asked, because its list may change while it answers.
        result = self._known[invitation.invitation_id] = CancellableInvitation(self._service, invitation)

        def forget(_: object = None) -> None:
            self._known.pop(invitation.invitation_id, None)

        result.subscribe(_ignore, forget, forget)
        result._follow(self._service.create_invitation(invitation, result._receive))
        return result

    def accept(self, invitation: Invitation) -> AuthenticatingInvitation:
        """Redeem an invitation."""
        result = AuthenticatingInvitation(self._service, invitation)
        self._guests.add(result)

        def forget(_: object = None) -> None:
            self._guests.discard(result)

        result.subscribe(_ignore, forget, forget)
        result._follow(self._service.accept_invitation(invitation, result._receive))
        return result

    def _receive(self, state: InvitationsState) -> None:
        self.created._next(tuple(self.create(one) for one in state.created if not one.state.is_final))
        self.accepted._next(state.accepted)


def make_space_invitation(
    space_id: str,
    space_key: PublicKey,
    *,
    auth_method: AuthMethod,
    multi_use: bool,
    lifetime_s: int | None,
    timeout_s: float | None,
    persistent: bool | None,
    role: SpaceRole | None,
    target: str | None,
) -> Invitation:
    """A new invitation to a space, before the host has filled in its defaults."""
    return Invitation(
        invitation_id=os.urandom(_ID_BYTES).hex(),
        type=InvitationType.INTERACTIVE,
        kind=InvitationKind.SPACE,
        auth_method=auth_method,
        swarm_key=PublicKey(os.urandom(_ID_BYTES)),
        timeout_ms=None if timeout_s is None else round(timeout_s * _MS_PER_S),
        space_key=space_key,
        target=target,
        persistent=persistent,
        lifetime_s=lifetime_s,
        multi_use=multi_use,
        role=role,
        space_id=space_id,
    )
