"""No secret is ever in a log, an error or a `repr`: a whole story, all of it written down (security.md, row 17)."""

import base64
import gc
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import anyio
import base58
import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key
from process_people import WAIT_S, join, person, shown, signalling, wrong

from dxos import AuthMethod, Client, DxosError, EchoObject, Invitation, InvitationEncoder
from dxos.keys.base62 import encode as encode_base62
from dxos.store.invitations import InvitationRecord
from dxos.teleport.invitation import Admit, Call, Respond
from dxos.teleport.mux import DataReceived
from dxos.teleport.rpc import Answered, Requested
from dxos.wire import decode, encode, pack_any
from dxos.wire.proto import invitation_pb2
from dxos.wire.proto.invitations_pb2 import AdmissionRequest, AuthenticationRequest, AuthenticationResponse
from dxos.wire.proto.keyring_pb2 import KeyRecord

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Secrets:
    """What must not be seen, in every way in which it could be written."""

    def __init__(self) -> None:
        self._forms: set[str] = set()
        self._codes: set[str] = set()

    def add_code(self, code: str) -> None:
        """Six digits, which are something else inside a longer number."""
        self._codes.add(code)

    def add_text(self, text: str) -> None:
        """As it is."""
        self._forms.add(text)

    def add_bytes(self, secret: bytes) -> None:
        """In hex, base64, base58, base62, and as Python writes bytes; a third of it is too much already."""
        for part in (secret, secret[: len(secret) // 3], secret[-(len(secret) // 3) :]):
            self._forms |= {part.hex(), part.hex().upper(), repr(part)[2:-1], str(list(part))[1:-1]}
        self._forms |= {
            base64.b64encode(secret).decode().rstrip("="),
            base64.urlsafe_b64encode(secret).decode().rstrip("="),
            base58.b58encode(secret).decode(),
            encode_base62(secret),
        }

    def add_keyring(self, folder: Path) -> int:
        """The private keys of a profile; how many."""
        paths = list((folder / "keyring").iterdir())
        for path in paths:
            pkcs8 = decode(KeyRecord, path.read_bytes()).private_key
            self.add_bytes(
                pkcs8[36:68]
            )  # The scalar, which is what remains secret of PKCS#8; the rest is the same for all.
            number = load_der_private_key(pkcs8, password=None).private_numbers().private_value  # type: ignore[union-attr]
            assert number == int.from_bytes(pkcs8[36:68], "big")
            self._forms.add(str(number))
        return len(paths)

    def found_in(self, text: str) -> list[str]:
        """The secrets in a text."""
        codes = [code for code in self._codes if re.search(rf"(?<![\da-f]){code}(?![\da-f])", text)]
        return codes + [form for form in self._forms if form in text]


def living() -> Iterator[object]:
    """Every object of ours that is alive, without generated messages: nothing of ours may show one with a secret."""
    for one in gc.get_objects():
        module = type(one).__module__
        if isinstance(module, str) and module.startswith("dxos") and not module.endswith("_pb2"):
            yield one


def shown_by(one: object) -> str:
    """All that an object says of itself; what an application stored is its own."""
    if isinstance(one, EchoObject):
        return ""
    try:
        said = [repr(one), str(one)]
    except DxosError as error:
        said = [str(error)]
    if isinstance(one, DxosError):
        said += [str(one.detail), str(one.args)]
    if isinstance(one, Client):
        said.append(str(one.to_json()))
    return "\n".join(said)


async def test_a_whole_story_shows_no_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in list(logging.root.manager.loggerDict):
        logging.getLogger(name).setLevel(logging.NOTSET)
    secrets, texts = Secrets(), []
    kinds: set[str] = set()

    def look() -> None:
        """Write down what everything alive says of itself now."""
        for one in living():
            texts.append(shown_by(one))
            kinds.add(type(one).__name__)

    async with signalling() as server, person(tmp_path / "bob", server, name="Bob") as bob:
        async with person(tmp_path / "alice", server) as alice:
            space = await alice.create_space(name="Groceries")
            space.db.add({"title": "Milk"})
            await space.db.flush()
            assert secrets.add_keyring(tmp_path / "alice") >= 5
            assert secrets.add_keyring(tmp_path / "bob") >= 5

            # Three wrong codes burn an invitation; its guest is looked at in the middle of the handshake.
            burned = space.create_invitation()
            code, auth_code = await shown(burned)
            secrets.add_code(auth_code)
            secrets.add_text(code)
            guest = bob.accept_invitation(code)
            for _ in range(2):
                await guest.authenticate(wrong(auth_code))
                look()
            with pytest.raises(DxosError) as caught:
                await guest.authenticate(wrong(auth_code))
            texts.append(shown_by(caught.value))
            with pytest.raises(DxosError):
                await burned

            # One that is cancelled, one whose code holds a private key, and one that is used.
            cancelled = space.create_invitation()
            code, auth_code = await shown(cancelled)
            secrets.add_code(auth_code)
            secrets.add_text(code)
            await cancelled.cancel()
            keyed = space.create_invitation(auth_method=AuthMethod.KNOWN_PUBLIC_KEY, multi_use=True)
            ready = await keyed.wait_for(lambda one: one.guest_keypair is not None, timeout_s=WAIT_S)
            secrets.add_text(InvitationEncoder.encode(ready))
            assert ready.guest_keypair is not None
            assert ready.guest_keypair.private_key is not None
            secrets.add_bytes(ready.guest_keypair.private_key[:32])
            used = space.create_invitation()
            code, auth_code = await shown(used)
            secrets.add_code(auth_code)
            secrets.add_text(code)
            look()
            joined = await join(bob, code, auth_code)
            assert isinstance(await used, Invitation)
            look()
            with pytest.raises(DxosError) as caught:
                await bob.accept_invitation(code)
            texts.append(shown_by(caught.value))
            assert await joined.db.query(title="Milk").count() == 1
        look()
        # Found again after a restart.
        async with person(tmp_path / "alice", server) as alice:
            await alice.spaces.get()[0].wait_until_ready(WAIT_S)
            with anyio.fail_after(WAIT_S):
                await alice.spaces.get()[0].invitations.wait_for(lambda them: len(them) == 1)
            look()
    # The records of other libraries count too: they are in the same log.
    texts += [logging.Formatter().format(record) for record in caplog.records]
    texts += [f"{record.args!r} {record.exc_info!r}" for record in caplog.records]
    assert caplog.records
    assert kinds >= {"Client", "LocalServices", "Space", "Invitation", "InvitationUpdate", "Keyring", "SigningKey"}
    found = {secret: text[:300] for text in texts for secret in secrets.found_in(text)}
    assert found == {}


def test_messages_on_their_way_show_no_code() -> None:
    code = "135790"
    request = AuthenticationRequest(auth_code=code)
    packed = pack_any(request)
    record = encode(invitation_pb2.Invitation(auth_code=code))
    for one in (
        Call("Authenticate", request, AuthenticationResponse, timeout_s=1.0),
        Respond(request),
        Admit(AdmissionRequest(), None),
        Requested(1, "Authenticate", packed, False),
        Answered(1, packed),
        DataReceived(1, packed.value),
        InvitationRecord("id", record, 0.0, 1.0, "CONNECTING"),
    ):
        assert code not in repr(one)


def test_what_is_looked_for_would_be_found() -> None:
    secrets = Secrets()
    secrets.add_code("123456")
    secrets.add_bytes(bytes(range(32)))
    assert secrets.found_in("the code is 123456.") == ["123456"]
    assert secrets.found_in("at 1123456") == []
    for text in (bytes(range(32)).hex(), repr(bytes(range(12))), base64.b64encode(bytes(range(32))).decode()):
        assert secrets.found_in(f"<Key {text}>")
