"""Values of the service contract as bytes, and back, checked: MessagePack by msgspec, from the contract's annotations.

A Struct is the list of its fields, in order, its tag first where an annotation allows several; an enum its value; a key
its bytes; an error its code, message and detail, so that the same class is raised on the other side. Both sides run the
same release, which their first messages have made sure of. What does not fit raises ProtocolError, whoever sent it.
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any, Final, cast, final

from msgspec import MsgspecError
from msgspec.msgpack import Decoder, Encoder

from dxos.errors import Detail, DxosError, InvalidValueError, ProtocolError, from_wire
from dxos.keys import PublicKey


@final
class Codec:
    """How values of one annotation become bytes, and come back."""

    def __init__(self, annotation: Any) -> None:
        self._annotation = annotation

    @cached_property
    def _decoder(self) -> Decoder[Any]:
        # Made when something is read: a client reads few of all kinds, and its start waits for none.
        return Decoder(self._annotation, dec_hook=_decode)

    def pack(self, value: Any) -> bytes:
        """A value as bytes.

        Raises:
            InvalidValueError: It holds what cannot be sent, such as an object of the application in a message.
        """
        try:
            return _ENCODER.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError, MsgspecError) as error:
            raise InvalidValueError(f"This cannot be sent to the host: {error}") from error

    def unpack(self, untrusted: bytes) -> Any:
        """A value from bytes.

        Raises:
            ProtocolError: Not bytes that `pack` made of a value of this annotation.
        """
        try:
            return self._decoder.decode(untrusted)
        except (MsgspecError, DxosError, ValueError, RecursionError) as error:
            raise ProtocolError("A value that does not parse.") from error


@cache
def codec_of(annotation: Any) -> Codec:
    """The codec of an annotation that the contract uses."""
    return Codec(annotation)


def _encode(value: Any) -> Any:
    match value:
        case PublicKey():
            return bytes(value)
        case DxosError():
            return value.code, str(value), value.detail
    raise TypeError(f"a {type(value).__name__} is no plain value")


def _decode(kind: type[Any], untrusted: Any) -> Any:
    match untrusted:
        case bytes() if kind is PublicKey:
            return PublicKey(untrusted)
        case [str(code), str(message), dict(detail)] if kind is DxosError and all(
            type(key) is str and isinstance(one, str | int | float | bool) for key, one in detail.items()
        ):
            return from_wire(code, message, cast(dict[str, Detail], detail))
    raise ProtocolError(f"Not a {kind.__name__}.")


_ENCODER: Final = Encoder(enc_hook=_encode)
