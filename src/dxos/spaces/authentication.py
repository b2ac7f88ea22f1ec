"""Each side of a connection proves to the other that it is a device of a member; nothing of the data flows before.

Both challenge with 32 random bytes, and answer with a credential signed over the challenge. A verifier may not know the
member yet, because the credential that admitted it is still on its way here: it waits for that, for a time.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

from dxos.aio import Changes
from dxos.errors import DeadlineError, LimitError, ProofError
from dxos.halo.auth import verify_auth
from dxos.keys import PublicKey
from dxos.limits import AUTH_CALL_TIMEOUT_S, AUTH_CHALLENGE_BYTES, AUTH_CHALLENGE_BYTES_MAX, AUTH_TIMEOUT_S
from dxos.mesh.connection import Extension, ExtensionChannel, Serve
from dxos.wire.proto.auth_pb2 import AuthenticateRequest, AuthenticateResponse

_METHOD = "dxos.mesh.teleport.auth.AuthService.Authenticate"


@final
class Authentication(Extension):
    """The extension of one connection.

    Args:
        prove: Answers a challenge for this device.
        is_member: Whether an identity is a member now.
        changes: Notified whenever the members may have changed.
        authenticated: Called once with the peer's identity and device.
        random: Gives that many random bytes.
    """

    name: ClassVar[str] = "dxos.mesh.teleport.auth"
    fatal: ClassVar[bool] = True

    def __init__(
        self,
        *,
        prove: Callable[[bytes], bytes],
        is_member: Callable[[PublicKey], bool],
        changes: Changes,
        authenticated: Callable[[PublicKey, PublicKey], None],
        random: Callable[[int], bytes],
    ) -> None:
        self._prove, self._is_member, self._changes = prove, is_member, changes
        self._authenticated, self._random = authenticated, random

    @property
    def handlers(self) -> Mapping[str, Serve[Any]]:
        return {_METHOD: Serve(AuthenticateRequest, self._answer)}

    async def _answer(self, request: AuthenticateRequest) -> AuthenticateResponse:
        if not 0 < len(request.challenge) <= AUTH_CHALLENGE_BYTES_MAX:
            raise LimitError("A challenge is empty or too long.", bytes_max=AUTH_CHALLENGE_BYTES_MAX)
        return AuthenticateResponse(credential=self._prove(request.challenge))

    async def opened(self, channel: ExtensionChannel) -> None:
        challenge = self._random(AUTH_CHALLENGE_BYTES)
        answer = await channel.call(
            _METHOD, AuthenticateRequest(challenge=challenge), AuthenticateResponse, timeout_s=AUTH_CALL_TIMEOUT_S
        )
        proven = verify_auth(answer.credential, challenge)
        # 0.8.3 does not compare these; without it, one member could appear in the place of another.
        if proven.device_key != channel.remote_key:
            raise ProofError("The peer proved another device than the one it announced itself as.")
        try:
            await self._changes.wait_until(lambda: self._is_member(proven.issuer), timeout_s=AUTH_TIMEOUT_S)
        except DeadlineError:
            raise ProofError("The peer is no member of the space, as far as is known here.") from None
        self._authenticated(proven.issuer, proven.device_key)
