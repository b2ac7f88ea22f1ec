import logging

import anyio
import pytest

from dxos.aio import Subscription
from dxos.client.observable import Signal, Source
from dxos.errors import ClosedError, DeadlineError, InvitationError
from dxos.limits import STREAM_VALUES_MAX

pytestmark = pytest.mark.anyio


def test_a_subscriber_gets_the_present_value_at_once_and_then_each_later_one() -> None:
    source, seen = Source(1), list[int]()
    subscription = source.subscribe(seen.append)
    assert seen == [1]
    source._next(2)
    assert (source.get(), source.value, seen) == (2, 2, [1, 2])
    subscription.unsubscribe()
    subscription()
    source._next(3)
    assert seen == [1, 2]


def test_there_is_no_value_before_the_first() -> None:
    source: Source[int] = Source()
    with pytest.raises(ClosedError):
        source.get()
    seen: list[int] = []
    source.subscribe(seen.append)
    assert seen == []


def test_a_subscriber_that_raises_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: int) -> None:
        raise RuntimeError("mine")

    source, seen = Source(1), list[int]()
    with caplog.at_level(logging.ERROR, "dxos.client"):
        source.subscribe(fail)
        source.subscribe(seen.append)
        source._next(2)
    assert seen == [1, 2]
    assert len(caplog.records) == 2


def test_a_value_that_a_subscriber_causes_comes_after_the_one_that_caused_it() -> None:
    source, late = Source(0), list[int]()
    source.subscribe(lambda value: source._next(2) if value == 1 else None)
    source.subscribe(late.append)
    source._next(1)
    assert late == [0, 1, 2]


def test_a_subscriber_that_left_during_a_delivery_is_not_called() -> None:
    source, seen = Source(0), list[int]()
    others: list[Subscription] = []

    def end_the_others(value: int) -> None:
        for other in others if value else ():
            other.unsubscribe()

    source.subscribe(end_the_others)
    others.append(source.subscribe(seen.append))
    source._next(1)
    assert seen == [0]


def test_a_late_subscriber_gets_the_last_value_and_the_end() -> None:
    source, seen = Source(1), list[object]()
    source._complete()
    source._next(2)
    source.subscribe(seen.append, seen.append, lambda: seen.append("complete"))
    assert seen == [1, "complete"]
    failed = Source(1)
    error = InvitationError("no")
    failed._error(error)
    seen.clear()
    failed.subscribe(seen.append, seen.append, lambda: seen.append("complete"))
    assert seen == [1, error]


async def test_a_loop_sees_the_present_value_later_ones_and_the_end() -> None:
    source, seen = Source(1), list[int]()

    async def feed() -> None:
        source._next(2)
        await anyio.lowlevel.checkpoint()
        source._next(3)
        source._complete()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed)
        async for value in source:
            seen.append(value)
    assert seen in ([1, 2, 3], [2, 3])


async def test_a_loop_that_is_left_early_is_forgotten() -> None:
    source = Source(1)
    async for _ in source:
        break
    assert len(source._subscribers) == 0


async def test_a_loop_ends_with_the_error_of_the_values() -> None:
    source = Source(1)
    source._error(InvitationError("no"))
    with pytest.raises(InvitationError):
        async for _ in source:
            pass


async def test_a_slow_reader_keeps_the_newest_values() -> None:
    source = Source(0)
    reader = aiter(source)
    for value in range(1, STREAM_VALUES_MAX + 10):
        source._next(value)
    assert await anext(reader) == 10


async def test_waiting_counts_the_present_value() -> None:
    assert await Source(1).wait_for(lambda value: value == 1) == 1


async def test_waiting_has_a_deadline() -> None:
    with pytest.raises(DeadlineError):
        await Source(1).wait_for(lambda value: value == 2, timeout_s=3600.0)


async def test_waiting_ends_when_the_values_do() -> None:
    source = Source(1)
    source._complete()
    with pytest.raises(ClosedError):
        await source.wait_for(lambda value: value == 2)
    failed = Source(1)
    failed._error(InvitationError("no"))
    with pytest.raises(InvitationError):
        await failed.wait_for(lambda value: value == 2)


async def test_waiting_raises_what_the_predicate_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        await Source(0).wait_for(lambda value: 1 / value > 0)


async def test_values_can_be_mapped_and_filtered() -> None:
    source, seen = Source(1), list[int]()
    mapped = source.map(lambda value: value * 10)
    even = source.filter(lambda value: value % 2 == 0)
    assert mapped.get() == 10
    with pytest.raises(ClosedError):
        even.get()
    even.subscribe(seen.append)
    source._next(2)
    source._next(3)
    source._next(4)
    assert seen == [2, 4]
    assert await mapped.wait_for(lambda value: value == 40) == 40


def test_the_repr_is_short() -> None:
    assert len(repr(Source("x" * 1000))) < 120


def test_a_signal_has_no_memory() -> None:
    signal, seen = Signal[int](), list[int]()
    signal.emit(1)
    subscription = signal.subscribe(seen.append)
    signal.emit(2)
    subscription()
    signal.emit(3)
    assert seen == [2]
