"""Answers members who ask for the credential that admitted somebody."""

from collections.abc import Mapping
from typing import Any, ClassVar, final

from dxos.errors import UsageError
from dxos.halo.space_state import SpaceState
from dxos.mesh.connection import Extension, Serve
from dxos.wire import from_key
from dxos.wire.proto.admission_discovery_pb2 import GetAdmissionCredentialRequest, GetAdmissionCredentialResponse

_METHOD = "dxos.mesh.teleport.AdmissionDiscoveryService.GetAdmissionCredential"


@final
class AdmissionDiscovery(Extension):
    """The extension of one connection."""

    name: ClassVar[str] = "dxos.mesh.teleport.admission-discovery"

    def __init__(self, state: SpaceState) -> None:
        self._state = state

    @property
    def handlers(self) -> Mapping[str, Serve[Any]]:
        return {_METHOD: Serve(GetAdmissionCredentialRequest, self._get)}

    async def _get(self, request: GetAdmissionCredentialRequest) -> GetAdmissionCredentialResponse:
        member = self._state.member(from_key(request.member_key))
        if from_key(request.space_key) != self._state.space_key or member is None or not member.role.is_member:
            raise UsageError("No such member here.")
        return GetAdmissionCredentialResponse(admission_credential=member.credential)
