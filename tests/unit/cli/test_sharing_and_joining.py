"""`dx space share` on one side and `dx space join` on the other, on the jumping clock."""

import io
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from dxos.cli.joining import join
from dxos.cli.output import Output
from dxos.cli.session import Session, Surroundings
from dxos.cli.sharing import Role, Terms, share
from dxos.client.client import Client
from dxos.client.space import Space
from dxos.errors import AuthenticationError, InvitationCancelledError, InvitationUsedError, NotAllowedError
from dxos.testing.services import AUTH_CODE, FakeNetwork, FakeServices

pytestmark = pytest.mark.anyio
TERMS = Terms(authenticated=True, multi_use=False, lifetime_s=3_600, timeout_s=60.0, role=Role.EDITOR)


class Paper(io.StringIO):
    """What is printed on."""

    def __init__(self) -> None:
        super().__init__()
        self.used = anyio.Event()

    def flush(self) -> None:
        self.used.set()


class Person:
    """Somebody with a terminal of their own."""

    def __init__(self, client: Client, stdin: io.StringIO, *, json: bool) -> None:
        self.client = client
        self.printed, self.heard = Paper(), io.StringIO()
        output = Output(json=json, stdout=self.printed, stderr=self.heard)
        self.session = Session(output, surroundings=Surroundings(environ={}, stdin=stdin))

    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.printed.getvalue().splitlines()]


class Scene:
    """Alice has a space and shares it; Bob and Carol are elsewhere."""

    def __init__(self, alice: Person, bob: Person, carol: Person, space: Space, network: FakeNetwork) -> None:
        self.network = network
        self.alice, self.bob, self.carol, self.space = alice, bob, carol, space

    async def share(self, terms: Terms = TERMS) -> None:
        await share(self.alice.session, self.alice.client, self.space, terms, qr=False)

    async def code(self) -> str:
        with anyio.fail_after(10):
            await self.alice.printed.used.wait()
        return str(self.alice.documents()[0]["code"])


@asynccontextmanager
async def scene(*typed: str) -> AsyncIterator[Scene]:
    network = FakeNetwork()
    async with (
        Client(services=FakeServices(network)) as alice,
        Client(services=FakeServices(network)) as bob,
        Client(services=FakeServices(network)) as carol,
    ):
        for client, name in ((alice, "Alice"), (bob, "Bob"), (carol, "Carol")):
            await client.halo.create_identity(name)
        space = await alice.create_space(name="Groceries")
        stdin = io.StringIO("".join(f"{line}\n" for line in typed))
        yield Scene(
            Person(alice, io.StringIO(), json=True),
            Person(bob, stdin, json=False),
            Person(carol, io.StringIO(), json=False),
            space,
            network,
        )


async def test_the_guest_types_the_code_and_both_sides_tell_what_happens() -> None:
    async with scene(AUTH_CODE) as it, anyio.create_task_group() as tasks:
        tasks.start_soon(it.share)
        space = await join(it.bob.session, it.bob.client, await it.code(), None)
        assert space.id == it.space.id
    shown, *_ = it.alice.documents()
    assert (shown["auth_code"], shown["command"]) == (AUTH_CODE, f"dx space join {shown['code']}")
    admitted = [one for one in it.alice.documents() if one["event"] == "admitted"]
    assert [(one["name"], one["role"]) for one in admitted] == [("Bob", "EDITOR")]
    heard = it.bob.heard.getvalue()
    for sentence in ("Looking for the host", "Connected", "Authentication code: ", "Admitted."):
        assert heard.count(sentence) == 1


async def test_a_wrong_code_says_how_many_attempts_are_left_and_asks_again() -> None:
    async with scene("000000", "", " 999999 ", AUTH_CODE) as it, anyio.create_task_group() as tasks:
        tasks.start_soon(it.share)
        await join(it.bob.session, it.bob.client, await it.code(), None)
    assert re.findall(r"(\d) attempts? left", it.bob.heard.getvalue()) == ["2", "1"]


async def test_three_wrong_codes_end_it_on_both_sides() -> None:
    async with scene("1", "2", "3", AUTH_CODE) as it, anyio.create_task_group() as tasks:

        async def host() -> None:
            with pytest.raises(AuthenticationError):
                await it.share()

        tasks.start_soon(host)
        with pytest.raises(AuthenticationError):
            await join(it.bob.session, it.bob.client, await it.code(), None)


async def test_a_given_code_that_is_wrong_is_an_error_and_not_tried_again() -> None:
    async with scene(AUTH_CODE) as it, anyio.create_task_group() as tasks:
        tasks.start_soon(it.share)
        with pytest.raises(AuthenticationError, match="wrong; 2 attempts left"):
            await join(it.bob.session, it.bob.client, await it.code(), "000000")
        tasks.cancel_scope.cancel()


async def test_without_input_the_option_is_named() -> None:
    async with scene() as it, anyio.create_task_group() as tasks:
        tasks.start_soon(it.share)
        with pytest.raises(AuthenticationError, match="--auth-code"):
            await join(it.bob.session, it.bob.client, await it.code(), None)
        tasks.cancel_scope.cancel()


async def test_without_authentication_nothing_is_asked() -> None:
    terms = Terms(authenticated=False, multi_use=False, lifetime_s=60, timeout_s=60.0, role=Role.READER)
    async with scene() as it, anyio.create_task_group() as tasks:
        tasks.start_soon(it.share, terms)
        space = await join(it.bob.session, it.bob.client, await it.code(), None)
        assert space.role.name == "READER"
    assert "Authentication code" not in it.bob.heard.getvalue()
    assert it.alice.documents()[0]["auth_code"] is None


async def test_interrupting_share_cancels_the_invitation() -> None:
    async with scene(AUTH_CODE) as it:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(it.share)
            code = await it.code()
            tasks.cancel_scope.cancel()
        with pytest.raises((InvitationCancelledError, InvitationUsedError)):
            await join(it.bob.session, it.bob.client, code, None)
    assert "cancelled" in it.alice.heard.getvalue()


async def test_a_multi_use_invitation_admits_guests_until_it_is_interrupted() -> None:
    terms = Terms(authenticated=True, multi_use=True, lifetime_s=60, timeout_s=60.0, role=Role.EDITOR)
    async with scene(AUTH_CODE) as it, anyio.create_task_group() as tasks:
        tasks.start_soon(it.share, terms)
        for person in (it.bob, it.carol):
            await join(person.session, person.client, await it.code(), AUTH_CODE)
        assert len(it.space.members.get()) == 3
        tasks.cancel_scope.cancel()
    assert [one["name"] for one in it.alice.documents() if one["event"] == "admitted"] == ["Bob", "Carol"]


async def test_a_reader_is_told_only_that_it_may_not_invite() -> None:
    terms = Terms(authenticated=False, multi_use=False, lifetime_s=60, timeout_s=60.0, role=Role.READER)
    async with scene() as it:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(it.share, terms)
            space = await join(it.bob.session, it.bob.client, await it.code(), None)
        it.bob.printed.truncate(0)
        with pytest.raises(NotAllowedError):
            await share(it.bob.session, it.bob.client, space, TERMS, qr=True)
        assert not it.bob.printed.getvalue().strip("\0")


async def test_a_host_that_does_not_answer_is_spoken_of_after_ten_seconds() -> None:
    async with scene() as it, anyio.create_task_group() as tasks:
        it.network.hosts_answer = False
        tasks.start_soon(it.share)
        code = await it.code()
        tasks.start_soon(join, it.bob.session, it.bob.client, code, None)
        await anyio.sleep(9)
        assert "does not answer" not in it.bob.heard.getvalue()
        await anyio.sleep(2)
        assert "The host does not answer yet." in it.bob.heard.getvalue()
        tasks.cancel_scope.cancel()
