"""Every decoder of bytes from outside: noise, truncations, and real bytes with a few changed, give errors of the tree.

The samples are what @dxos/client 0.8.3 wrote, so that a change in them reaches further than noise does. What has a
state of its own is fuzzed in `test_teleport_fuzz`, `test_echo`, `test_feed_properties` and `test_mesh` too.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dxos import Config, DxosError, InvitationEncoder, PublicKey
from dxos.echo import cbor, messages, sync_message
from dxos.echo.document import Document, SyncState
from dxos.echo.layout import links, materialize, space_key_of
from dxos.errors import ConfigError, InvitationCodeError, PeerError, StorageError, UsageError, from_wire
from dxos.feed import bitfield
from dxos.feed import messages as feed_messages
from dxos.feed.log import Log
from dxos.feed.replication import Replication
from dxos.feed.storage import MemoryLogStorage
from dxos.feed.timeframe import Timeframe
from dxos.feed.varint import read_varint
from dxos.halo.auth import verify_auth
from dxos.halo.credential import decode_credential, verify_credential, verify_presentation
from dxos.halo.devices import DeviceState
from dxos.halo.feed_message import decode_feed_message
from dxos.halo.invitation import AuthMethod, Invitation, InvitationKind, InvitationState, InvitationType
from dxos.halo.space_state import SpaceState
from dxos.keys import SigningKey
from dxos.keys.base62 import decode as decode_base62
from dxos.keys.ids import is_object_id, is_space_id, parse_document_id
from dxos.mesh.messenger import MessengerMachine
from dxos.mesh.signal_server import SignalServer
from dxos.mesh.signal_session import SignalSession
from dxos.spaces.gossip import Gossip, GossipExtension
from dxos.spaces.identity import _parse as parse_identity
from dxos.spaces.invitation_guest import check_admission
from dxos.spaces.invitation_host import verdict
from dxos.store.documents import unpack_heads
from dxos.store.invitations import InvitationRecord
from dxos.store.keyring import Keyring
from dxos.teleport import invitation as machines
from dxos.teleport.framer import FrameReader
from dxos.teleport.session import Session
from dxos.wire import (
    decode,
    encode,
    from_key,
    from_struct,
    from_timestamp,
    to_canonical_json,
    unpack_any,
)
from dxos.wire import proto as proto_package
from dxos.wire.proto import credentials_pb2, gossip_pb2, invitation_pb2, invitations_pb2, keys_pb2, values_pb2

VECTORS = Path(__file__).parents[1] / "vectors"
KEY = PublicKey(b"\x04" + b"k" * 64)


def vector(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))


def bytes_in(found: Any) -> Iterator[bytes]:
    """Everything in a vector that is written in hex."""
    if isinstance(found, dict | list):
        for one in found.values() if isinstance(found, dict) else found:
            yield from bytes_in(one)
    elif isinstance(found, str) and len(found) % 2 == 0:
        with contextlib.suppress(ValueError):
            yield bytes.fromhex(found)


@st.composite
def damaged(draw: st.DrawFn, samples: list[bytes]) -> bytes:
    """Noise, or one of the samples cut, changed, or joined with another."""
    if not samples or draw(st.integers(0, 5)) == 0:
        return draw(st.binary(max_size=120))
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.integers(0, 4)):
            case 0 | 1 if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 2 if data:
                data[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
            case 3:
                del data[at:]
            case 4:
                data[at:at] = draw(st.binary(max_size=8))
    return bytes(data)


class Decoder(NamedTuple):
    """One way in."""

    name: str
    samples: list[bytes]
    read: Callable[[bytes], object]
    allowed: tuple[type[DxosError], ...] = (PeerError,)
    examples: int = 150


# --- Messages of the wire ---------------------------------------------------------------------------------------------


def message_kinds() -> list[type[Message]]:
    """Every message of our .proto files."""
    import importlib
    import pkgutil

    found: dict[str, type[Message]] = {}
    for info in pkgutil.iter_modules(proto_package.__path__):
        module: ModuleType = importlib.import_module(f"{proto_package.__name__}.{info.name}")
        for descriptor in module.DESCRIPTOR.message_types_by_name.values():
            found[descriptor.full_name] = GetMessageClass(descriptor)
    return [found[name] for name in sorted(found)]


WIRE = [sample for sample in bytes_in(vector("wire_messages")) if len(sample) < 2_000]
KINDS = message_kinds()


def read_messages(untrusted: bytes) -> None:
    """Decode as every kind there is, and do with it what is done with such a message first."""
    for kind in KINDS:
        try:
            message = decode(kind, untrusted)
        except PeerError:
            continue
        encode(message)
        with contextlib.suppress(PeerError):
            to_canonical_json(message)
        match message:
            case keys_pb2.PublicKey():
                from_key(message)
            case values_pb2.Any():
                with contextlib.suppress(PeerError):
                    unpack_any(message)
            case values_pb2.Struct():
                with contextlib.suppress(PeerError):
                    from_struct(message)
            case values_pb2.Timestamp():
                from_timestamp(message)
            case invitation_pb2.Invitation():
                with contextlib.suppress(PeerError):
                    Invitation.from_message(message)
            case _ if message.DESCRIPTOR.name == "TimeframeVector":
                with contextlib.suppress(PeerError):
                    Timeframe.from_wire(message)  # type: ignore[arg-type]


# --- Machines with one message each -----------------------------------------------------------------------------------


def make_invitation(method: AuthMethod = AuthMethod.SHARED_SECRET) -> Invitation:
    return Invitation(
        invitation_id="ab" * 32,
        type=InvitationType.INTERACTIVE,
        kind=InvitationKind.SPACE,
        auth_method=method,
        swarm_key=PublicKey(b"s" * 32),
        auth_code="123456",
    )


REQUESTS = (
    invitations_pb2.InvitationOptions,
    invitations_pb2.IntroductionRequest,
    invitations_pb2.AuthenticationRequest,
    invitations_pb2.AdmissionRequest,
)
GOOD_ANSWERS = (b"", b"\x08\x01", b"\x08\x00")  # To options; to introduction: SHARED_SECRET; to authentication: OK.


def read_invitation_messages(untrusted: bytes) -> None:
    """As each request to a host and to a guest, and as the answer to each call of a guest."""
    for answers_count in range(4):
        host = machines.InvitationHost(make_invitation(), failures_count=0, challenge=b"c" * 32)
        guest = make_guest()
        host.open(now=0.0)
        actions = guest.open(now=0.0)
        guest.receive(decode(invitations_pb2.InvitationOptions, b"\x08\x01"), now=0.0)
        for number in range(answers_count + 1):
            call = next((one for one in actions if isinstance(one, machines.Call)), None)
            if call is None:
                break
            try:
                answer = decode(call.response, untrusted if number == answers_count else GOOD_ANSWERS[number])
            except PeerError as error:
                guest.answer(error, now=1.0)
                break
            actions = [*guest.answer(answer, now=1.0), *guest.handle_timer(now=2.0)]
            if guest.state is InvitationState.READY_FOR_AUTHENTICATION:
                actions = guest.authenticate("123456")
        for machine in (host, guest):
            for kind in REQUESTS:
                with contextlib.suppress(PeerError):
                    machine.receive(decode(kind, untrusted), now=3.0)


def make_guest() -> machines.InvitationGuest:
    return machines.InvitationGuest(
        make_invitation(),
        admission=invitations_pb2.AdmissionRequest(space=invitations_pb2.SpaceAdmissionRequest()),
        profile=credentials_pb2.ProfileDocument(),
    )


def read_admission(untrusted: bytes) -> None:
    admission = decode(invitations_pb2.SpaceAdmissionCredentials, untrusted)
    check_admission(admission.credential, make_invitation(), identity_key=KEY)


def read_credential(untrusted: bytes) -> None:
    """Into the records of a space and of an identity, verified and not."""
    credential = decode_credential(untrusted)
    for is_verified in (True, False):
        with contextlib.suppress(PeerError):
            SpaceState(SPACE_KEY).process(credential, KEY, is_verified=is_verified)
    with contextlib.suppress(PeerError):
        DeviceState(KEY).process(credential)
    verify_credential(credential)


SPACE_KEY = KEY


def read_gossip(untrusted: bytes) -> None:
    gossip = Gossip(peer_id=KEY, random=bytes, now_ms=lambda: 0)
    gossip.receive(decode(gossip_pb2.GossipMessage, untrusted), source=GossipExtension(gossip))


def read_signal_frame(untrusted: bytes) -> None:
    server = SignalServer(wake=lambda _: None)
    socket = server.open(0.0)
    for frame in (*SIGNAL_OUT[:3], untrusted):
        server.receive(socket, frame, now=0.0, now_ms=0)
    server.close(socket)


def read_signal_answer(untrusted: bytes) -> None:
    session = SignalSession()
    session.join(PublicKey(b"t" * 32), KEY, 0.0)
    session.receive(untrusted)


def read_reliable(untrusted: bytes) -> None:
    machine = MessengerMachine()
    for name in ("ReliablePayload", "Acknowledgement", "Other"):
        with contextlib.suppress(PeerError):
            payload = values_pb2.Any(type_url=f"dxos.mesh.messaging.{name}", value=untrusted)
            machine.receive(KEY, PublicKey(b"\x04" + b"r" * 64), payload)


def read_session(untrusted: bytes) -> None:
    session = Session(now=0.0)
    session.add_extension("a", now=0.0)
    session.receive(untrusted, now=0.0)
    session.data_to_send(1 << 20)


def read_feed_bodies(untrusted: bytes) -> None:
    for kind in range(11):
        with contextlib.suppress(PeerError):
            feed_messages.decode_body(kind, untrusted)
    bitfield.decode_runs(untrusted, bytes_max=4_096)


def read_feed_stream(untrusted: bytes) -> None:
    replication = Replication(Log(FEED_KEY, MemoryLogStorage()), now=0.0)
    replication.receive(untrusted, now=0.0)


def read_document(untrusted: bytes) -> None:
    document = Document.load_untrusted(untrusted)
    materialize(document)
    links(document)
    space_key_of(document)
    document.to_python()


def read_sync(untrusted: bytes) -> None:
    document, state = Document.load(AUTOMERGE_SAVED), SyncState()
    with contextlib.suppress(PeerError):
        document.receive_sync_message(state, untrusted)
    document.generate_sync_message(state)
    materialize(document)


# --- Files and records ------------------------------------------------------------------------------------------------

KEYRING = vector("keys_keyring_files")["keyringFiles"]


def read_key_file(untrusted: bytes, folder: Path) -> None:
    name = next(iter(KEYRING)).split("/")[-1]
    keyring = Keyring(folder)
    (folder / name).write_bytes(untrusted)
    keyring.sign(PublicKey.from_hex(name), b"message")


def read_invitation_record(untrusted: bytes) -> None:
    verdict(InvitationRecord("id", untrusted, 0.0, 1.0, "CONNECTING"), now_ms=0)


def read_config(untrusted: bytes, folder: Path) -> None:
    for suffix in (".json", ".toml"):
        path = folder / f"config{suffix}"
        path.write_bytes(untrusted)
        with contextlib.suppress(ConfigError):
            Config.load(path)


# --- Text and plain data ----------------------------------------------------------------------------------------------


def read_texts(untrusted: bytes) -> None:
    text = untrusted.decode("utf-8", "replace")
    for read in (PublicKey.from_hex, parse_document_id, decode_base62):
        with contextlib.suppress(UsageError):
            read(text)
    is_object_id(text)
    is_space_id(text)


def read_plain(untrusted: bytes) -> None:
    """What comes from another process as JSON."""
    try:
        value = json.loads(untrusted)
    except (ValueError, RecursionError):
        return
    with contextlib.suppress(ConfigError):
        Config(value)


SIGNAL = vector("mesh")
SIGNAL_OUT = [bytes.fromhex(data) for way, data in SIGNAL["signal_trace"] if way == "out"]
SIGNAL_IN = [bytes.fromhex(data) for way, data in SIGNAL["signal_trace"] if way != "out"]
HALO = vector("halo_credentials")
CREDENTIALS = [bytes.fromhex(one["protobuf"]) for one in HALO["credentials"].values()]
FEED = vector("feed_hypercore")
FEED_KEY = PublicKey.from_hex(FEED["feedKey"])
TELEPORT = vector("teleport")
AUTOMERGE = vector("echo_automerge")["i_automerge"]
AUTOMERGE_SAVED = bytes.fromhex(AUTOMERGE["save"])
DOCUMENTS = [bytes.fromhex(one["save"]) for one in vector("echo_echo_documents")["i_echo_documents"].values()]
REPO = [*bytes_in(vector("echo_automerge_repo_cbor")), *bytes_in(vector("echo_live_repo_trace"))]
CODES = [one["text"].encode() for one in vector("halo_invitations").values() if isinstance(one, dict)]
SMALL = [one for one in DOCUMENTS if len(one) < 4_000]
IDENTITY = json.dumps(dict.fromkeys(("identity", "device", "halo_space", "control_feed", "data_feed"), "04" * 65))
PLAIN = [
    b'{"op":"put","path":["a",0],"value":{"b":[1,2.5,null,true]}}',
    b'{"filter":{"kind":"equals","path":["a"],"value":1},"order":[["a",false]],"limit":3}',
    b'{"object_id":"01HXXXXXXXXXXXXXXXXXXXXXXX","kind":"object","deleted":false,"meta":{},"data":{}}',
    b'{"version":1,"runtime":{"client":{"storage":{"persistent":true}},"services":{"signaling":[{"server":"ws://h/"}]}}}',
]
TOML = [b'version = 1\n[runtime.client.storage]\npersistent = true\ndataRoot = "x"\n', PLAIN[3]]
NETWORK = [
    Decoder("messages", WIRE, read_messages, examples=100),
    Decoder("invitation messages", list(bytes_in(TELEPORT["invitation"])), read_invitation_messages),
    Decoder("admission", [b"\x0a" + bytes([len(one) & 0x7F]) + one for one in CREDENTIALS], read_admission),
    Decoder("credential", CREDENTIALS, read_credential, examples=400),
    Decoder("feed message", list(bytes_in(HALO["feed_messages"])), decode_feed_message),
    Decoder(
        "presentation",
        list(bytes_in(HALO["presentation"])),
        lambda data: verify_presentation(decode(credentials_pb2.Presentation, data)),
    ),
    Decoder("authentication", CREDENTIALS, lambda data: verify_auth(data, b"nonce")),
    Decoder("gossip", WIRE, read_gossip),
    Decoder("signal server", SIGNAL_OUT, read_signal_frame),
    Decoder("signal client", SIGNAL_IN, read_signal_answer),
    Decoder("reliable messages", list(bytes_in(SIGNAL["e_messaging"])), read_reliable),
    Decoder("frames", list(bytes_in(TELEPORT["stream"])), lambda data: FrameReader().receive(data)),
    Decoder("session", list(bytes_in(TELEPORT["stream"])), read_session),
    Decoder("feed bodies", list(bytes_in(FEED["wire"])), read_feed_bodies),
    Decoder("feed stream", list(bytes_in(FEED["wire"])), read_feed_stream),
    Decoder("varint", [b"\xff\x01"], lambda data: read_varint(data, 0)),
    Decoder("CBOR", REPO, cbor.decode, examples=400),
    Decoder("repo messages", REPO, messages.decode, examples=400),
    Decoder("sync message", [bytes.fromhex(AUTOMERGE["sync1"])], sync_message.parse),
    Decoder("sync into a document", [bytes.fromhex(AUTOMERGE["sync1"])], read_sync, examples=400),
    Decoder("document", [*SMALL, AUTOMERGE_SAVED], read_document, examples=400),
]
LOCAL = [
    Decoder(
        "invitation code",
        CODES,
        lambda data: InvitationEncoder.decode(data.decode("utf-8", "replace")),
        (InvitationCodeError,),
        400,
    ),
    Decoder("private key", [bytes.fromhex(one) for one in KEYRING.values()], SigningKey.from_pkcs8, (StorageError,)),
    Decoder("identity record", [IDENTITY.encode()], parse_identity, (StorageError,)),
    Decoder("invitation record", WIRE, read_invitation_record, (StorageError,)),
    Decoder("heads", [b"h" * 64], unpack_heads, (StorageError,)),
    Decoder("texts", [*CODES, FEED_KEY.hex.encode()], read_texts, (UsageError,)),
    Decoder("plain data", PLAIN, read_plain, (DxosError,), 400),
]


def ids(decoders: Iterable[Decoder]) -> list[str]:
    return [one.name for one in decoders]


@pytest.mark.parametrize("decoder", [*NETWORK, *LOCAL], ids=ids([*NETWORK, *LOCAL]))
def test_damaged_bytes_give_an_error_of_the_tree_or_none(decoder: Decoder) -> None:
    @settings(max_examples=decoder.examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(damaged(decoder.samples))
    def check(untrusted: bytes) -> None:
        with contextlib.suppress(*decoder.allowed):
            decoder.read(untrusted)

    check()


@pytest.mark.parametrize("decoder", [one for one in NETWORK if one.samples], ids=lambda one: one.name)
def test_every_truncation_gives_an_error_of_the_tree_or_none(decoder: Decoder) -> None:
    sample = min(decoder.samples, key=len)
    for end in range(min(len(sample), 200)):
        with contextlib.suppress(*decoder.allowed):
            decoder.read(sample[:end])


@pytest.mark.parametrize(
    ("read", "samples", "allowed"),
    [
        (read_key_file, [bytes.fromhex(one) for one in KEYRING.values()], StorageError),
        (read_config, TOML, ConfigError),
    ],
    ids=["keyring file", "settings file"],
)
def test_damaged_files_give_an_error_of_the_tree_or_none(
    read: Callable[[bytes, Path], None], samples: list[bytes], allowed: type[DxosError], tmp_path: Path
) -> None:
    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(damaged(samples))
    def check(untrusted: bytes) -> None:
        with contextlib.suppress(allowed):
            read(untrusted, tmp_path)

    check()


@pytest.mark.parametrize("entry_bits_and_probes", [b"\x00\x07", b"\x0a\xff\xff\xff\xff\x0f", b"\x7f\x07"])
def test_a_filter_that_would_make_the_library_panic_is_refused(entry_bits_and_probes: bytes) -> None:
    sync = bytes.fromhex(AUTOMERGE["sync1"])
    unusual = b"\x01" + entry_bits_and_probes + b"\xa3" * 16
    altered = sync.replace(b"\x06\x02\x0a\x07\xa3\x93\x30", bytes([len(unusual)]) + unusual)
    assert altered != sync
    document = Document.load(AUTOMERGE_SAVED)
    with pytest.raises(PeerError):
        document.receive_sync_message(SyncState(), altered)
    assert document.generate_sync_message(SyncState()) is not None


@settings(max_examples=100)
@given(st.text(max_size=30), st.text(max_size=30))
def test_any_error_of_another_process_becomes_one_of_the_tree(code: str, message: str) -> None:
    assert isinstance(from_wire(code, message, {}), DxosError)
