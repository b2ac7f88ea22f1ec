"""What a block of a control feed holds: one credential, and how far its writer had read (wire reference, D.1)."""

from collections.abc import Iterable
from typing import final

from msgspec import Struct

from dxos.errors import DecodeError, LimitError
from dxos.halo.credential import check_form
from dxos.keys import PublicKey
from dxos.limits import BLOCK_BYTES_MAX, FEEDS_PER_SPACE_MAX
from dxos.wire import decode, encode
from dxos.wire.proto.credentials_pb2 import Credential
from dxos.wire.proto.feed_pb2 import CredentialsMessage, FeedMessage
from dxos.wire.proto.timeframe_pb2 import TimeframeVector


@final
class FeedEntry(Struct, frozen=True):
    """One decoded block."""

    credential: Credential | None  # None in a block of a data feed.
    timeframe: tuple[tuple[PublicKey, int], ...]  # Feed keys, and the sequence number last read of each.


def encode_feed_message(credential: Credential, timeframe: Iterable[tuple[PublicKey, int]] = ()) -> bytes:
    """A credential as a block.

    Args:
        credential: What to write.
        timeframe: Feed keys and the sequence number last read of each; the feed written to is left out.
    """
    frames = [TimeframeVector.Frame(feed_key=bytes(key), seq=sequence) for key, sequence in timeframe]
    message = FeedMessage(
        timeframe=TimeframeVector(frames=frames),
        payload=FeedMessage.Payload(credential=CredentialsMessage(credential=credential)),
    )
    return encode(message)


def decode_feed_message(untrusted: bytes) -> FeedEntry:
    """Read a block; the credential in it is checked for its form, not for its proof.

    Raises:
        LimitError: Longer than a block may be, or too many feeds in its timeframe.
        DecodeError: Not such a message, or a negative sequence number.
    """
    message = decode(FeedMessage, untrusted, bytes_max=BLOCK_BYTES_MAX)
    if len(message.timeframe.frames) > FEEDS_PER_SPACE_MAX:
        raise LimitError("A timeframe names too many feeds.", count_max=FEEDS_PER_SPACE_MAX)
    if any(frame.seq < 0 or not frame.feed_key for frame in message.timeframe.frames):
        raise DecodeError("A timeframe has a malformed entry.")
    timeframe = tuple((PublicKey(frame.feed_key), frame.seq) for frame in message.timeframe.frames)
    if not message.payload.HasField("credential"):
        return FeedEntry(None, timeframe)
    credential = message.payload.credential.credential
    check_form(credential)
    return FeedEntry(credential, timeframe)
