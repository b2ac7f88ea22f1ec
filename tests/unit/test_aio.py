"""Errors that leave their groups."""

import pytest

from dxos.aio import unwrap_group
from dxos.errors import BrokenError, DxosError, StorageFullError


def group(*errors: BaseException) -> BaseExceptionGroup[BaseException]:
    return BaseExceptionGroup("tasks", errors)


def test_a_lone_error_leaves_all_its_groups() -> None:
    with pytest.raises(ValueError, match="milk"), unwrap_group():
        raise group(group(ValueError("milk")))


def test_of_several_errors_of_the_tree_the_first_is_raised() -> None:
    with pytest.raises(DxosError) as caught, unwrap_group():
        raise group(group(BrokenError("first"), BrokenError("second")), StorageFullError("third"))
    assert str(caught.value) == "first"


def test_a_bug_among_them_is_not_hidden() -> None:
    with pytest.raises(BaseExceptionGroup) as caught, unwrap_group():
        raise group(BrokenError("first"), ValueError("a bug"))
    assert caught.group_contains(ValueError)
