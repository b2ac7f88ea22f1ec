"""The credential that admitted somebody is told to members, about members."""

import pytest

from dxos.errors import UsageError
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.spaces.admission import AdmissionDiscovery
from dxos.testing.peers import simulated_hosts
from dxos.wire import to_key
from dxos.wire.proto.admission_discovery_pb2 import GetAdmissionCredentialRequest

pytestmark = pytest.mark.anyio


async def test_members_are_told_of_and_nobody_else_is() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        credential = space.admit(bob.identity_key, SpaceRole.EDITOR)
        (serve,) = AdmissionDiscovery(space.pipeline.state).handlers.values()

        def ask(member: PublicKey, of: PublicKey) -> GetAdmissionCredentialRequest:
            return GetAdmissionCredentialRequest(member_key=to_key(member), space_key=to_key(of))

        answer = await serve.function(ask(bob.identity_key, space.key))
        assert answer.admission_credential == credential  # type: ignore[attr-defined]
        for request in (ask(bob.device_key, space.key), ask(bob.identity_key, bob.identity_key)):
            with pytest.raises(UsageError):
                await serve.function(request)
        space.change_role(bob.identity_key, SpaceRole.REMOVED)
        with pytest.raises(UsageError):
            await serve.function(ask(bob.identity_key, space.key))
