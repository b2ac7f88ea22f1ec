"""Whoever only looks is told who shares a profile, and takes no part in it."""

from dxos.worker.coordinator import Answer, CloseLink, Coordinator, Send
from dxos.worker.messages import PROTOCOL, Attending, Hello, Leading, Listening, Look, NewLeader, Welcome


def said(machine: Coordinator) -> list[object]:
    found: list[object] = list(machine.actions)
    machine.actions.clear()
    return found


def coordinator(protocol: int = PROTOCOL) -> Coordinator:
    machine = Coordinator(7, pid=1, version="0.1.0", protocol=protocol)
    machine.linked(1, 0.0)
    machine.receive(1, Hello("alice", 10, "0.1.0", protocol, "notes.py", 5), 0.0)
    said(machine)
    return machine


def test_who_looks_is_told_of_leader_worker_and_clients_and_the_link_ends() -> None:
    machine = coordinator()
    machine.relay(NewLeader(7))
    machine.linked(2, 0.0)
    said(machine)
    machine.receive(2, Look(), 0.0)
    assert said(machine) == [Answer(2)]
    machine.answer(2, Listening("worker", 20, "0.1.1", PROTOCOL))
    assert said(machine) == [
        Send(2, Leading(7, 1, "0.1.0", True, "worker", 20, "0.1.1", 1, PROTOCOL)),
        Send(2, Attending("alice", 10, "0.1.0", "notes.py", 5)),
        CloseLink(2),
    ]
    assert machine.clients == ["alice"]
    machine.relay(NewLeader(7))
    assert said(machine) == [Send(1, NewLeader(7))], "it is no member"


def test_it_may_look_whatever_the_protocol_is_and_before_there_is_a_worker() -> None:
    machine = coordinator(protocol=PROTOCOL + 1)
    machine.linked(2, 0.0)
    machine.receive(2, Look(), 0.0)
    said(machine)
    machine.answer(2, None)
    first = said(machine)[0]
    assert isinstance(first, Send)
    assert first.message == Leading(7, 1, "0.1.0", False, "", 0, "", clients_count=1, protocol=PROTOCOL + 1)


def test_who_is_gone_is_told_nothing_and_one_that_says_nothing_is_dropped() -> None:
    machine = coordinator()
    machine.linked(2, 0.0)
    machine.receive(2, Look(), 0.0)
    machine.link_ended(2)
    said(machine)
    machine.answer(2, None)
    assert said(machine) == []
    machine.linked(3, 0.0)
    machine.handle_timer(machine.next_timer() or 0.0)
    assert said(machine) == [CloseLink(3)]
    machine.linked(4, 0.0)
    machine.receive(4, Hello("bob", 11, "0.1.0", PROTOCOL), 0.0)
    assert any(isinstance(one, Send) and isinstance(one.message, Welcome) for one in said(machine))
