"""The machines of `dxos.worker` one by one: their tables, their times, and every message in every state."""

import contextlib
import itertools
import random
from collections.abc import Callable

import pytest
from message_examples import example

from dxos.errors import PeerError
from dxos.limits import (
    COORDINATOR_LINKS_MAX,
    HAND_OVER_PAUSE_S,
    HAND_OVER_S_MAX,
    HELLO_TIMEOUT_S,
    LEADER_BEAT_S,
    LEADER_FAILURES_MAX,
    LEADER_RETRY_S_MAX,
    LEADER_STALE_S,
    LEADER_STEALS_MAX,
    LINK_RETRY_S_MAX,
    LOCK_RETRY_S,
    PORT_POLL_S,
    PORT_TIMEOUT_S,
    STEAL_COOLDOWN_S,
    WORKER_ADOPT_S,
    WORKER_GRACE_S,
    WORKER_KILL_S_MAX,
    WORKER_SESSIONS_MAX,
    WORKER_STALE_S,
    WORKER_START_S_MAX,
)
from dxos.worker import coordinator, election, following, leadership, sessions
from dxos.worker.coordinator import Coordinator
from dxos.worker.election import Election
from dxos.worker.following import Following
from dxos.worker.leadership import Leadership
from dxos.worker.messages import (
    PROTOCOL,
    Failure,
    HandOver,
    Hello,
    Init,
    InitFailed,
    Listening,
    Message,
    NewLeader,
    Ping,
    Pong,
    ProvidePort,
    Ready,
    Refused,
    RequestPort,
    Session,
    SessionFailed,
    StartSession,
    Terminate,
    Welcome,
)
from dxos.worker.sessions import Sessions

FAILURE = Failure("storage", "The disk is gone.")
LISTENING = Listening("worker", 1, "0.1.0", PROTOCOL)
PORT = ProvidePort("alice", 1, 1, "worker", "alive.worker", "0.1.0")
EVERY = [example(kind) for kind in Message.__args__]


def take(machine: Election | Leadership | Coordinator | Following | Sessions) -> list[object]:
    found: list[object] = list(machine.actions)
    machine.actions.clear()
    return found


# --- Election ---------------------------------------------------------------------------------------------------------


def waiting(now: float = 0.0) -> Election:
    machine = Election()
    machine.start(now)
    machine.lock_busy(now)
    take(machine)
    return machine


def watch(machine: Election, start: float, seconds: float, *, newest: int = 1, beat: int = 1) -> float:
    """Look at a leader that stands still until there is more to do than try the lock; how long that took."""
    now = start
    while now < start + seconds:
        machine.tick(now, newest, beat)
        tries = machine.actions.count(election.TryLock())
        for _ in range(tries):
            machine.actions.remove(election.TryLock())
            machine.lock_busy(now)
        if machine.actions:
            return now - start
        now += LEADER_BEAT_S
    return seconds


def test_a_leader_that_was_there_before_us_is_judged_by_its_heartbeat_alone() -> None:
    machine = waiting()
    waited_s = watch(machine, 0.0, 60.0)
    assert take(machine) == [election.StealLock(1)]
    assert LEADER_STALE_S <= waited_s <= LEADER_STALE_S + 2 * LEADER_BEAT_S


def test_a_heartbeat_that_moves_on_whatever_clock_keeps_a_leader() -> None:
    machine = waiting()
    for step in range(200):
        machine.tick(step * LEADER_BEAT_S, 1, -step)
        for action in take(machine):
            assert action == election.TryLock()
            machine.lock_busy(step * LEADER_BEAT_S)


def test_each_steal_in_vain_doubles_the_pause_and_the_last_is_reported_once() -> None:
    machine, now, pauses = waiting(), 0.0, []
    for newest in range(1, LEADER_STEALS_MAX + 1):
        pauses.append(watch(machine, now, 1_000.0, newest=newest))
        assert take(machine) == [election.StealLock(newest)]
        now += pauses[-1]
        machine.lock_busy(now)  # Another one was faster, and freezes too.
    assert [one >= STEAL_COOLDOWN_S * 2**index for index, one in enumerate(pauses[1:], 1)] == [True] * 3
    assert pauses == sorted(pauses)
    assert watch(machine, now, 1_000.0, newest=9) < 1_000.0
    (report,) = take(machine)
    assert isinstance(report, election.ReportFailure)
    assert watch(machine, now + 1_000.0, 1_000.0, newest=9) == 1_000.0
    machine.connected()
    machine.disconnected()
    assert watch(machine, now + 2_000.0, 1_000.0, newest=10) < 1_000.0
    assert take(machine) == [election.StealLock(10)]


def test_whoever_was_refused_by_the_coordinator_steals_nothing() -> None:
    machine = waiting()
    machine.coordinator_failed()
    assert watch(machine, 0.0, 600.0) == 600.0
    machine.coordinator_greeted()
    assert watch(machine, 600.0, 600.0) < 600.0


def test_a_lock_that_nobody_holds_is_tried_and_not_stolen() -> None:
    machine = Election()
    machine.start(0.0)
    assert take(machine) == [election.TryLock()]
    for step in range(100):
        machine.tick(step * LEADER_BEAT_S, 1, 1)  # The answer takes long.
    assert not take(machine)


def test_a_lock_that_its_killed_holder_still_has_is_tried_again_at_once_and_then_less_often() -> None:
    machine, now, pauses = waiting(), 1.0, []
    assert machine.next_timer() is None
    machine.link_ended(now)
    while True:
        assert take(machine) == [election.TryLock()]
        machine.lock_busy(now)
        at = machine.next_timer()
        if at is None:
            break
        pauses.append(at - now)
        machine.handle_timer(now)
        assert not take(machine), "it is not time yet"
        now = at
        machine.handle_timer(now)
    assert pauses[0] < 0.02
    assert [round(after / before, 6) for before, after in itertools.pairwise(pauses)] == [2.0] * (len(pauses) - 1)
    machine.tick(now + 2.0, 1, 1)
    assert take(machine) == [election.TryLock()]


def test_the_end_of_the_link_has_the_lock_tried_at_once() -> None:
    machine = waiting()
    machine.tick(0.5, 1, 1)
    assert not take(machine)
    machine.link_ended(0.6)
    assert take(machine) == [election.TryLock()]
    machine.link_ended(0.6)
    assert not take(machine)
    machine.lock_busy(0.6)
    machine.tick(0.6 + LOCK_RETRY_S, 1, 2)
    assert take(machine) == [election.TryLock()]


def test_a_leader_beats_and_steps_down_when_there_is_a_newer_one() -> None:
    machine = waiting()
    machine.link_ended(1.0)
    machine.lock_acquired(3, 1.0)
    machine.tick(1.5, 3, 1)
    assert take(machine) == [election.TryLock(), election.Lead(3), election.Beat(3)]
    assert machine.observe(3, 1.6)
    machine.renewed(4, 1.7)
    machine.tick(2.0, 4, 1)
    assert take(machine) == [election.Beat(4)]
    assert not machine.observe(5, 2.1)
    assert take(machine) == [election.StepDown(4, terminate=False)]
    machine.leadership_failed(FAILURE, 2.2, 0.5)
    assert machine.failures_count == 0, "it was over by then"


@pytest.mark.parametrize("taken", [False, True])
def test_who_handed_over_pauses_until_the_lock_was_taken(taken: bool) -> None:
    machine = Election()
    machine.start(0.0)
    machine.lock_acquired(3, 0.0)
    machine.hand_over(1.0)
    assert take(machine) == [election.TryLock(), election.Lead(3), election.StepDown(3, terminate=True)]
    machine.tick(1.5, 3, 1)
    assert machine.state is election.State.PAUSED
    machine.tick(2.0, 4, 1) if taken else machine.tick(1.0 + HAND_OVER_PAUSE_S, 3, 1)
    assert take(machine) == [election.TryLock()]


def test_leaderships_that_fail_are_followed_by_longer_pauses() -> None:
    machine, now, pauses, reports = Election(), 0.0, [], 0
    machine.start(now)
    for number in range(1, 8):
        machine.lock_acquired(number, now)
        machine.leadership_failed(FAILURE, now, jitter=1.0)
        failed_at = now
        while machine.state is election.State.PAUSED:
            now += 0.25
            machine.tick(now, number, 1)
        pauses.append(now - failed_at)
        reports += sum(isinstance(one, election.ReportFailure) for one in take(machine))
        assert reports == (1 if number >= LEADER_FAILURES_MAX else 0)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, LEADER_RETRY_S_MAX, LEADER_RETRY_S_MAX]


def test_a_lock_that_comes_too_late_is_let_go_of() -> None:
    machine = Election()
    machine.start(0.0)
    machine.close()
    take(machine)
    machine.lock_acquired(1, 0.1)
    assert take(machine) == [election.StepDown(1, terminate=False)]
    machine.tick(10.0, 1, 1)
    assert not take(machine)


def test_the_diagnostics_say_what_was_seen_of_the_leader() -> None:
    machine = waiting()
    machine.tick(0.0, 1, 1)
    machine.tick(0.5, 1, 1)
    assert machine.diagnostics(1.25) == {
        "worker_leader_phase": "waiting",
        "worker_is_leader": False,
        "worker_leader_failures": 0,
        "worker_steal_count": 0,
        "worker_ms_since_leader_heartbeat": 1_250,
    }


# --- Leadership -------------------------------------------------------------------------------------------------------


def spawned() -> Leadership:
    machine = Leadership(1, client_id="alice", config="{}")
    machine.start()
    machine.worker_absent(0.0)
    machine.worker_linked(0.0)
    assert take(machine) == [leadership.Adopt(), leadership.Spawn()]
    return machine


def ready(now: float = 0.0) -> Leadership:
    machine = spawned()
    machine.receive(LISTENING, now)
    machine.receive(Ready(1, "alive.worker"), now)
    init = Init("alice", 1, "alice", config="{}")
    assert take(machine) == [
        leadership.ToWorker(init),
        leadership.ToWorker(Ping(1)),
        leadership.ToClients(NewLeader(1)),
    ]
    return machine


def test_a_request_is_passed_on_once_and_its_session_to_whoever_asked() -> None:
    machine = ready()
    machine.request(RequestPort("bob", 2))
    machine.request(RequestPort("bob", 2))
    machine.request(RequestPort("bob", 1))
    assert take(machine) == [leadership.ToWorker(StartSession("bob", 2))]
    machine.receive(Session("bob", 1), 0.1)
    assert take(machine) == [leadership.Discard(Session("bob", 1))]
    machine.receive(Session("bob", 2), 0.1)
    port = ProvidePort("bob", 2, 1, "worker", "alive.worker", "0.1.0")
    assert take(machine) == [leadership.ToClients(port)]
    machine.client_left("bob")
    machine.receive(SessionFailed("bob", 2, FAILURE), 0.1)
    assert not take(machine)


def test_a_worker_is_killed_for_silence_that_we_heard_and_not_for_our_own_sleep() -> None:
    machine = ready()
    machine.handle_timer(600.0)  # We were stopped for ten minutes.
    assert not [one for one in take(machine) if isinstance(one, leadership.Kill)]
    machine.receive(Pong(1), 600.0)
    now = 600.0
    while machine.state is leadership.State.READY:
        now = machine.next_timer() or 0.0
        machine.handle_timer(now)
    assert WORKER_STALE_S <= now - 600.0 < 2 * WORKER_STALE_S
    assert take(machine)[-1] == leadership.Kill("worker")
    machine.worker_gone(now)
    assert take(machine) == [leadership.Renew()]
    machine.renewed(2, now)
    assert take(machine) == [leadership.Spawn()]


@pytest.mark.parametrize("adopted", [True, False])
def test_a_process_that_never_listens_is_killed(adopted: bool) -> None:
    machine = Leadership(1, client_id="alice", config="{}")
    machine.start()
    if not adopted:
        machine.worker_absent(0.0)
    machine.worker_linked(0.0)
    take(machine)
    due = machine.next_timer()
    assert due == (WORKER_STALE_S if adopted else WORKER_START_S_MAX)
    machine.handle_timer(due)
    assert take(machine) == [leadership.Kill("")]
    machine.worker_gone(due)
    found = take(machine)
    if adopted:
        assert found == [leadership.Spawn()], "with the same id, which no worker was told"
    else:
        assert isinstance(found[0], leadership.Failed)
        assert found[1:] == [leadership.Closed()]


def test_a_process_that_cannot_be_killed_is_a_failure() -> None:
    machine = ready()
    while machine.state is leadership.State.READY:
        now = machine.next_timer() or 0.0
        machine.handle_timer(now)
    take(machine)
    assert machine.next_timer() == now + WORKER_KILL_S_MAX
    machine.handle_timer(now + WORKER_KILL_S_MAX)
    assert isinstance(take(machine)[0], leadership.Failed)


def test_a_worker_of_another_protocol_is_dismissed_and_replaced() -> None:
    machine = Leadership(1, client_id="alice", config="{}")
    machine.start()
    machine.worker_linked(0.0)
    machine.receive(Listening("older", 1, "0.0.1", protocol=0), 0.0)
    assert take(machine) == [leadership.Adopt(), leadership.ToWorker(Terminate(1))]
    machine.handle_timer(WORKER_GRACE_S)
    assert take(machine) == [leadership.Kill("older")]
    machine.worker_gone(WORKER_GRACE_S)
    assert take(machine) == [leadership.Spawn()]


def test_a_worker_that_appears_after_we_left_is_ended() -> None:
    machine = Leadership(1, client_id="alice", config="{}")
    machine.start()
    machine.worker_absent(0.0)
    machine.actions.popleft()
    machine.actions.popleft()
    machine.close(0.1)
    assert take(machine) == [leadership.Closed()]
    machine.worker_linked(0.2)
    assert take(machine) == [leadership.ToWorker(Terminate(1)), leadership.DropWorker()]
    machine.receive(LISTENING, 0.3)
    assert not take(machine)


def test_a_leadership_that_ends_leaves_nothing_to_be_done() -> None:
    machine = ready()
    machine.request(RequestPort("bob", 1))
    machine.close(0.1)
    assert take(machine) == [leadership.DropWorker(), leadership.Closed()]


def test_a_worker_that_knows_a_newer_leader_deposes_us_and_fails_nobody() -> None:
    machine = spawned()
    machine.receive(LISTENING, 0.0)
    take(machine)
    machine.receive(InitFailed(2, Failure(leadership.FENCED, "Another process leads this profile.")), 0.1)
    found = take(machine)
    assert found[0] == leadership.Deposed()
    assert found[-1] == leadership.Closed()
    assert not [one for one in found if isinstance(one, leadership.ToClients | leadership.Failed)]


# --- Coordinator ------------------------------------------------------------------------------------------------------


def test_nobody_speaks_for_another_client() -> None:
    machine = Coordinator(1, pid=1, version="0.1.0")
    machine.linked(1, 0.0)
    with pytest.raises(PeerError):
        machine.receive(1, RequestPort("alice", 1), 0.0)
    machine.receive(1, Hello("alice", 1, "0.1.0", PROTOCOL), 0.0)
    with pytest.raises(PeerError):
        machine.receive(1, RequestPort("bob", 1), 0.0)
    machine.receive(1, RequestPort("alice", 1), 0.0)
    assert take(machine)[-1] == coordinator.ToLeader(RequestPort("alice", 1))


def test_a_client_has_its_newest_link() -> None:
    machine = Coordinator(1, pid=1, version="0.1.0")
    for link in (1, 2):
        machine.linked(link, 0.0)
        machine.receive(link, Hello("alice", 1, "0.1.0", PROTOCOL), 0.0)
    assert coordinator.CloseLink(1) in take(machine)
    machine.link_ended(1)
    machine.relay(PORT)
    assert take(machine) == [coordinator.Send(2, PORT)]
    machine.link_ended(2)
    machine.relay(PORT)
    assert take(machine) == [coordinator.ClientLeft("alice"), coordinator.Discard(PORT)]


def test_a_link_that_says_nothing_is_closed_and_there_are_only_so_many() -> None:
    machine = Coordinator(1, pid=1, version="0.1.0")
    for link in range(COORDINATOR_LINKS_MAX):
        machine.linked(link, 0.0)
    assert not take(machine)
    machine.linked(COORDINATOR_LINKS_MAX, 0.0)
    assert take(machine) == [coordinator.CloseLink(COORDINATOR_LINKS_MAX)]
    machine.handle_timer(HELLO_TIMEOUT_S)
    assert len(take(machine)) == COORDINATOR_LINKS_MAX
    assert machine.next_timer() is None


def test_only_a_newer_client_may_ask_the_leader_to_hand_over() -> None:
    machine = Coordinator(1, pid=7, version="0.2.0", protocol=2)
    for link, protocol in ((1, 1), (2, 3)):
        machine.linked(link, 0.0)
        machine.receive(link, Hello(f"client {link}", 1, "0.9.0", protocol), 0.0)
    older, newer = take(machine)
    assert isinstance(older, coordinator.Send)
    assert isinstance(older.message, Refused)
    assert "Process 7" in older.message.reason
    assert "0.2.0" in older.message.reason
    assert isinstance(newer, coordinator.Send)
    with pytest.raises(PeerError):
        machine.receive(1, HandOver(), 0.0)
    machine.receive(2, HandOver(), 0.0)
    assert take(machine) == [coordinator.AskedToHandOver("0.9.0")]


# --- Following --------------------------------------------------------------------------------------------------------


def member(*, ready: bool = True) -> Following:
    machine = Following("alice", pid=1, version="0.1.0")
    machine.start(0.0)
    machine.link_opened(0.0)
    machine.receive(Welcome(1, ready, 1, "0.1.0", PROTOCOL), 0.0)
    return machine


def test_a_port_is_asked_for_until_it_comes_with_one_attempt() -> None:
    machine = member()
    now = 0.0
    for _ in range(5):
        assert take(machine)[-1] == following.Send(RequestPort("alice", 1))
        assert machine.next_timer() == now + PORT_POLL_S
        now += PORT_POLL_S
        machine.handle_timer(now)
    machine.receive(PORT, now)
    assert take(machine)[-1] == following.Connected(PORT)
    assert machine.next_timer() is None
    machine.receive(PORT, now)
    assert take(machine) == [following.Discard(PORT)]


def test_an_answer_that_never_comes_is_asked_for_anew() -> None:
    machine = member()
    take(machine)
    machine.handle_timer(PORT_TIMEOUT_S)
    assert take(machine) == [following.Send(RequestPort("alice", 2))]
    machine.receive(PORT, PORT_TIMEOUT_S)
    assert take(machine) == [following.Discard(PORT)]


def test_a_port_that_cannot_be_reached_is_asked_for_anew_after_a_moment() -> None:
    machine = member()
    take(machine)
    machine.port_failed(1, 0.1)
    machine.port_failed(1, 0.2)  # Of an attempt that is over already.
    assert take(machine) == [], "at once it would be asked for as often as it fails"
    assert machine.next_timer() == 0.1 + PORT_POLL_S
    machine.handle_timer(0.1 + PORT_POLL_S)
    assert take(machine) == [following.Send(RequestPort("alice", 2))]
    assert machine.diagnostics()["worker_port_failures"] == 1
    machine.receive(PORT, 0.7)
    assert take(machine) == [following.Discard(PORT)]


def test_a_ticket_is_passed_on_by_the_leader() -> None:
    machine = ready()
    machine.request(RequestPort("alice", 1))
    take(machine)
    machine.receive(Session("alice", 1, 4_711, "token", "answer"), 1.0)
    (action,) = take(machine)
    assert isinstance(action, leadership.ToClients)
    assert isinstance(action.message, ProvidePort)
    assert (action.message.port, action.message.token, action.message.answer) == (4_711, "token", "answer")


def test_a_port_of_an_older_leader_is_discarded() -> None:
    machine = member(ready=False)
    take(machine)
    machine.receive(NewLeader(3), 0.1)
    assert take(machine) == [following.Send(RequestPort("alice", 1))]
    machine.receive(PORT, 0.2)
    assert take(machine) == [following.Discard(PORT)]


def test_a_session_that_ends_is_asked_for_with_the_next_attempt_at_once() -> None:
    machine = member()
    machine.receive(PORT, 0.1)
    take(machine)
    machine.port_ended(1, 0.2)
    assert take(machine) == [following.Send(RequestPort("alice", 2))]
    machine.port_ended(1, 0.3)
    assert not take(machine)


def test_a_lost_link_is_made_again_within_milliseconds_and_the_session_goes_on() -> None:
    machine = member()
    machine.receive(PORT, 0.1)
    take(machine)
    machine.link_ended(0.2)
    due = machine.next_timer()
    assert due is not None
    assert due - 0.2 <= 0.05
    machine.handle_timer(due)
    assert take(machine) == [following.OpenLink()]
    assert machine.state is following.State.CONNECTED


def test_what_was_asked_for_over_a_lost_link_is_asked_for_anew() -> None:
    machine = member()
    machine.link_ended(0.1)
    machine.handle_timer(0.2)
    machine.link_opened(0.2)
    take(machine)
    machine.receive(Welcome(1, True, 1, "0.1.0", PROTOCOL), 0.2)
    assert take(machine) == [following.Send(RequestPort("alice", 2))]


def test_a_coordinator_that_does_not_greet_is_left_and_so_is_one_of_an_older_leader() -> None:
    machine = Following("alice", pid=1, version="0.1.0")
    machine.start(0.0)
    machine.link_opened(0.0)
    take(machine)
    machine.handle_timer(HELLO_TIMEOUT_S)
    assert take(machine) == [following.CloseLink(), following.OpenLink()]
    machine = member()
    take(machine)
    machine.observe(1, 0.1)
    assert not take(machine)
    machine.observe(2, 0.1)
    assert take(machine) == [following.CloseLink(), following.OpenLink()]


def test_numbers_that_begin_again_because_the_files_were_lost_are_taken() -> None:
    machine = member()
    machine.receive(NewLeader(5), 0.1)
    machine.link_ended(0.2)
    machine.observe(2, 0.5)
    machine.handle_timer(0.6)
    machine.link_opened(0.6)
    machine.receive(Welcome(2, True, 1, "0.1.0", PROTOCOL), 0.6)
    take(machine)
    port = ProvidePort("alice", machine.attempt, 2, "worker", "alive.worker", "0.1.0")
    machine.receive(port, 0.7)
    assert take(machine) == [following.Connected(port)]


def test_a_frozen_coordinator_is_left_for_the_next_one_at_once_and_not_when_it_has_not_greeted() -> None:
    machine = Following("alice", pid=1, version="0.1.0")
    machine.start(0.0)
    machine.link_opened(0.0)
    machine.observe(1, 0.1)
    machine.handle_timer(HELLO_TIMEOUT_S)  # The next one would be given twice as long.
    machine.link_opened(HELLO_TIMEOUT_S)
    take(machine)
    machine.observe(1, 2.4)
    assert not take(machine), "the one that it is, and not a new one"
    machine.observe(2, 2.5)
    assert take(machine) == [following.CloseLink(), following.OpenLink()]
    machine.link_opened(2.5)
    take(machine)
    machine.nudge(2.6)
    assert take(machine) == [following.CloseLink(), following.OpenLink()], "this process leads"
    machine.link_opened(2.6)
    assert machine.next_timer() == 2.6 + HELLO_TIMEOUT_S


def test_an_error_that_will_not_pass_is_said_at_once() -> None:
    machine = Following("alice", pid=1, version="0.1.0")
    machine.start(0.0)
    machine.link_failed(FAILURE, 0.0)
    assert take(machine)[-1] == following.Rejected(FAILURE)
    assert machine.diagnostics()["worker_coordinator_error"] == FAILURE.message
    machine.nudge(1.0)
    assert not take(machine)


def test_whoever_had_a_session_is_told_once_that_it_is_refused_and_goes_on_trying() -> None:
    machine = member()
    machine.receive(PORT, 0.1)
    machine.link_ended(0.2)
    now = machine.next_timer()
    assert now is not None
    machine.handle_timer(now)
    machine.link_opened(now)
    take(machine)
    machine.receive(Refused("Too old.", PROTOCOL + 1, "0.2.0"), now)
    assert take(machine) == [following.CloseLink(), following.Warned(Failure("storage.version", "Too old."))]
    assert machine.state is following.State.CONNECTED, "the session goes on"
    assert machine.next_timer() == now + LINK_RETRY_S_MAX
    now += LINK_RETRY_S_MAX
    machine.handle_timer(now)
    machine.link_failed(FAILURE, now)
    assert take(machine) == [following.OpenLink()]
    assert machine.next_timer() == now + LINK_RETRY_S_MAX
    machine.observe(2, now + 0.1)
    assert take(machine) == [following.OpenLink()], "a newer leader may be of our version"
    machine.link_failed(FAILURE, now + 0.1)
    machine.observe(2, now + 0.2)
    assert not take(machine)
    machine.nudge(now + 0.2)
    assert take(machine) == [following.OpenLink()], "this process leads"
    machine.link_opened(now + 0.2)
    machine.receive(Welcome(2, True, 1, "0.1.0", PROTOCOL), now + 0.2)
    assert "worker_coordinator_error" not in machine.diagnostics()
    machine.port_ended(1, now + 0.3)
    assert take(machine)[-1] == following.Send(RequestPort("alice", 2))


@pytest.mark.parametrize("had_session", [False, True])
def test_an_older_leader_is_asked_to_hand_over_and_one_that_does_not_is_not_asked_for_ever(had_session: bool) -> None:
    machine = member()
    if had_session:
        machine.receive(PORT, 0.1)
    now, asked_count = 0.2, 0
    machine.link_ended(now)
    while now < 2 * HAND_OVER_S_MAX and (at := machine.next_timer()) is not None:
        now = at
        machine.handle_timer(now)
        machine.link_opened(now)
        take(machine)
        machine.receive(Refused("Too old.", PROTOCOL - 1, "0.0.1"), now)
        if following.Send(HandOver()) not in (found := take(machine)):
            break
        asked_count += 1
    assert now - 0.2 - HAND_OVER_S_MAX < 2 * HELLO_TIMEOUT_S
    assert asked_count >= HAND_OVER_S_MAX / HELLO_TIMEOUT_S - 1, "once for each time that it does not"
    kind = following.Warned if had_session else following.Rejected
    assert found[-1] == kind(Failure("storage.version", "Too old."))
    if not had_session:
        return
    machine.observe(1, now)
    machine.observe(2, now)
    machine.link_opened(now)
    machine.receive(Refused("Too old.", PROTOCOL - 1, "0.0.1"), now)
    assert take(machine)[-1] == following.Send(HandOver()), "another leader may"


def test_after_the_first_session_a_failure_is_the_leaders_to_mend() -> None:
    machine = member()
    machine.receive(PORT, 0.1)
    machine.port_ended(1, 0.2)
    machine.receive(InitFailed(1, FAILURE), 0.3)
    machine.receive(SessionFailed("alice", 2, FAILURE), 0.3)
    machine.persistent_failure(FAILURE)
    assert machine.state is following.State.SEEKING


# --- Sessions ---------------------------------------------------------------------------------------------------------


def serving() -> Sessions:
    machine = Sessions("worker", pid=1, version="0.1.0", liveness_key="alive.worker")
    machine.linked(1)
    init = Init("alice", 1, "alice", config="{}")
    machine.receive(1, init, 0.0)
    machine.initialised(0.0)
    assert take(machine) == [
        sessions.Send(1, LISTENING),
        sessions.StartHost(init),
        sessions.Send(1, Ready(1, "alive.worker")),
    ]
    return machine


def test_a_newer_attempt_ends_the_session_before_and_an_older_is_ignored() -> None:
    machine = serving()
    for attempt in (2, 2, 1, 3):
        machine.receive(1, StartSession("alice", attempt), 0.0)
        machine.session_opened("alice", attempt)
    assert take(machine) == [
        sessions.OpenSession("alice", 2),
        sessions.Send(1, Session("alice", 2)),
        sessions.CloseSession("alice", 2),
        sessions.OpenSession("alice", 3),
        sessions.Send(1, Session("alice", 3)),
    ]
    machine.session_ended("alice", 2)
    assert machine.clients == {"alice": 3}


def test_an_older_leader_is_told_so_and_the_newer_one_is_obeyed() -> None:
    machine = serving()
    machine.receive(1, StartSession("alice", 1), 0.0)
    machine.receive(1, StartSession("bob", 1), 0.0)
    machine.session_opened("alice", 1)
    machine.linked(2)
    take(machine)
    machine.receive(2, Init("bob", 3, "bob", config="{}"), 0.1)
    assert take(machine) == [
        sessions.CloseLink(1),
        sessions.Promote(3),
        sessions.CloseSession("bob", 1),
        sessions.Send(2, Ready(3, "alive.worker")),
    ]
    machine.receive(1, StartSession("carol", 1), 0.1)
    assert not take(machine)
    machine.linked(3)
    machine.receive(3, Init("carol", 2, "carol", config="{}"), 0.2)
    refusal = take(machine)[1]
    assert isinstance(refusal, sessions.Send)
    assert isinstance(refusal.message, InitFailed)
    assert refusal.message.failure.code == leadership.FENCED


def test_without_a_leader_it_waits_for_the_next_while_somebody_is_served() -> None:
    machine = serving()
    machine.receive(1, StartSession("alice", 1), 0.0)
    machine.session_opened("alice", 1)
    take(machine)
    machine.link_ended(1, 1.0)
    assert machine.next_timer() == 1.0 + WORKER_ADOPT_S
    machine.linked(2)
    machine.receive(2, Init("bob", 2, "bob", config="{}"), 2.0)
    assert machine.next_timer() is None
    machine.link_ended(2, 3.0)
    take(machine)
    machine.handle_timer(3.0 + WORKER_ADOPT_S)
    closing, end = take(machine)
    assert closing == sessions.CloseSession("alice", 1)
    assert isinstance(end, sessions.End)


def test_without_a_leader_it_ends_with_its_last_session() -> None:
    machine = serving()
    machine.receive(1, StartSession("alice", 1), 0.0)
    machine.session_opened("alice", 1)
    machine.link_ended(1, 1.0)
    take(machine)
    machine.session_ended("alice", 1)
    assert isinstance(take(machine)[-1], sessions.End)
    machine.linked(9)
    assert take(machine) == [sessions.CloseLink(9)]


def test_a_session_that_nobody_can_hand_over_is_closed() -> None:
    machine = serving()
    machine.receive(1, StartSession("alice", 1), 0.0)
    machine.receive(1, StartSession("bob", 1), 0.0)
    machine.session_opened("alice", 1)
    take(machine)
    machine.link_ended(1, 1.0)
    assert take(machine) == [sessions.CloseSession("bob", 1)]
    machine.session_opened("bob", 1)
    assert not take(machine)


def test_there_are_only_so_many_sessions() -> None:
    machine = serving()
    for number in range(WORKER_SESSIONS_MAX + 1):
        machine.receive(1, StartSession(f"client {number}", 1), 0.0)
    refusal = take(machine)[-1]
    assert isinstance(refusal, sessions.Send)
    assert isinstance(refusal.message, SessionFailed)


def test_a_host_that_cannot_be_opened_or_is_fenced_ends_the_worker() -> None:
    machine = Sessions("worker", pid=1, version="0.1.0", liveness_key="alive.worker")
    machine.linked(1)
    machine.receive(1, Init("alice", 1, "alice", config="{}"), 0.0)
    take(machine)
    machine.init_failed(FAILURE)
    assert take(machine)[0] == sessions.Send(1, InitFailed(1, FAILURE))
    other = serving()
    other.fenced()
    assert isinstance(take(other)[-1], sessions.End)


def test_a_ping_is_answered_in_every_state() -> None:
    machine = Sessions("worker", pid=1, version="0.1.0", liveness_key="alive.worker")
    machine.linked(1)
    steps: list[Callable[[], None]] = [
        lambda: None,
        lambda: machine.receive(1, Init("alice", 1, "alice", config="{}"), 0.0),
        lambda: machine.initialised(0.0),
        lambda: machine.terminate("Enough."),
        machine.ended,
    ]
    for step in steps:
        step()
        machine.receive(1, Ping(5), 0.0)
        assert take(machine)[-1] == sessions.Send(1, Pong(5))


# --- Every message in every state -------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", [election, leadership, coordinator, following, sessions])
def test_every_state_of_a_table_can_be_reached_and_left(machine: object) -> None:
    table = machine.TRANSITIONS  # type: ignore[attr-defined]
    states = set(machine.State)  # type: ignore[attr-defined]
    first = next(iter(machine.State))  # type: ignore[attr-defined]
    assert {one for one, _ in table} | set(table.values()) == states
    assert states - set(table.values()) <= {first}
    assert len(states - {one for one, _ in table}) == 1, "one state is the last"


@pytest.mark.parametrize("seed", range(20))
def test_no_message_in_any_order_breaks_a_machine(seed: int) -> None:
    chance = random.Random(seed)
    for make in (leadership_inputs, coordinator_inputs, following_inputs, sessions_inputs):
        machine, inputs = make(chance)
        now = 0.0
        for _ in range(200):
            now += chance.choice((0.0, 0.1, 3.0))
            with contextlib.suppress(PeerError):
                chance.choice(inputs)(now)
            due = machine.next_timer()
            if due is not None and due <= now:
                machine.handle_timer(now)
                machine.handle_timer(now)
                machine.handle_timer(now)
            later = machine.next_timer()
            assert later is None or later > now or machine.actions, "a timer that is due is handled"
            machine.actions.clear()


Inputs = list[Callable[[float], None]]


def leadership_inputs(chance: random.Random) -> tuple[Leadership, Inputs]:
    machine = Leadership(1, client_id="alice", config="{}")
    machine.start()
    return machine, [
        lambda now: machine.receive(chance.choice(EVERY), now),
        lambda now: machine.receive(chance.choice(EVERY), now),
        machine.worker_linked,
        machine.worker_absent,
        machine.worker_gone,
        lambda now: machine.spawn_failed(FAILURE),
        lambda now: machine.renewed(machine.leadership_id + 1, now),
        lambda now: machine.request(RequestPort("alice", chance.randint(1, 9))),
        lambda now: machine.client_left("alice"),
        lambda now: machine.close(now, terminate=True) if chance.random() < 0.05 else None,
    ]


def coordinator_inputs(chance: random.Random) -> tuple[Coordinator, Inputs]:
    machine = Coordinator(1, pid=1, version="0.1.0")
    said: list[NewLeader | InitFailed | ProvidePort] = [NewLeader(1), InitFailed(1, FAILURE), PORT]
    return machine, [
        lambda now: machine.linked(chance.randint(10, 10**9), now),
        lambda now: machine.linked(1, now) if 1 not in machine._links else None,
        lambda now: machine.receive(1, chance.choice(EVERY), now),
        lambda now: machine.relay(chance.choice(said)),
        lambda now: machine.link_ended(1),
        lambda now: machine.renewed(machine.leadership_id + 1),
    ]


def following_inputs(chance: random.Random) -> tuple[Following, Inputs]:
    machine = Following("alice", pid=1, version="0.1.0")
    machine.start(0.0)
    friendly = [one for one in EVERY if not isinstance(one, Refused | InitFailed | SessionFailed)]
    return machine, [
        lambda now: machine.receive(chance.choice(friendly), now),
        lambda now: machine.receive(chance.choice(EVERY if chance.random() < 0.05 else friendly), now),
        machine.link_opened,
        machine.link_opened,
        machine.link_ended,
        lambda now: machine.link_failed(FAILURE, now) if machine.was_connected else None,
        machine.nudge,
        lambda now: machine.observe(chance.randint(1, 5), now),
        lambda now: machine.port_ended(machine.attempt, now),
    ]


def sessions_inputs(chance: random.Random) -> tuple[Sessions, Inputs]:
    machine = Sessions("worker", pid=1, version="0.1.0", liveness_key="alive.worker")
    machine.linked(1)
    return machine, [
        lambda now: machine.linked(chance.randint(2, 4)),
        lambda now: machine.receive(chance.randint(1, 4), Init("alice", chance.randint(1, 50), "alice", "{}"), now),
        lambda now: machine.receive(chance.randint(1, 4), StartSession("alice", chance.randint(1, 9)), now),
        lambda now: machine.receive(1, chance.choice(EVERY), now) if chance.random() < 0.1 else None,
        machine.initialised,
        lambda now: machine.session_opened("alice", machine.clients.get("alice", 1)),
        lambda now: machine.session_failed("alice", machine.clients.get("alice", 1), FAILURE),
        lambda now: machine.session_ended("alice", machine.clients.get("alice", 1)),
        lambda now: machine.link_ended(chance.randint(1, 4), now),
    ]


def test_a_worker_that_cannot_start_is_reported_to_all_who_wait() -> None:
    machine = Leadership(1, client_id="c1", config="{}")
    machine.start()
    machine.worker_absent(0.0)
    machine.worker_linked(0.0)
    machine.actions.clear()
    machine.worker_cannot_start(FAILURE)
    told = [one.message for one in machine.actions if isinstance(one, leadership.ToClients)]
    assert told == [InitFailed(1, FAILURE)]
    assert any(isinstance(one, leadership.Failed) for one in machine.actions)
    machine.worker_cannot_start(FAILURE)
    assert sum(isinstance(one, leadership.ToClients) for one in machine.actions) == 1
