"""Our own .proto files, the modules generated from them, and how DXOS 0.8.3 writes them."""

from dxos.wire.canonical import canonical, to_canonical_json
from dxos.wire.dialect import (
    Json,
    complete,
    decode,
    encode,
    from_key,
    from_struct,
    from_timestamp,
    from_value,
    pack_any,
    to_key,
    to_struct,
    to_timestamp,
    type_name,
    unpack_any,
)

__all__ = [
    "Json",
    "canonical",
    "complete",
    "decode",
    "encode",
    "from_key",
    "from_struct",
    "from_timestamp",
    "from_value",
    "pack_any",
    "to_canonical_json",
    "to_key",
    "to_struct",
    "to_timestamp",
    "type_name",
    "unpack_any",
]
