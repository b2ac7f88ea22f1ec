import pytest

from dxos.errors import CorruptionError
from dxos.store.checksum import check_sum, checked


def test_content_is_returned_only_if_it_is_what_was_summed() -> None:
    assert checked(b"milk", check_sum(b"milk"), what="it") == b"milk"
    with pytest.raises(CorruptionError, match="the list is damaged"):
        checked(b"mild", check_sum(b"milk"), what="the list")
