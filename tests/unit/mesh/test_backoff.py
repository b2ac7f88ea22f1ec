from dxos.mesh.backoff import Backoff


def test_pauses_double_up_to_the_longest_and_start_again_after_a_success() -> None:
    backoff = Backoff(0.5, 4.0, random=lambda count: b"\xff" * count)
    assert [backoff.next_pause() for _ in range(5)] == [0.5, 1.0, 2.0, 4.0, 4.0]
    backoff.reset()
    assert backoff.next_pause() == 0.5


def test_pauses_are_drawn_from_the_upper_half() -> None:
    backoff = Backoff(1.0, 1.0, random=bytes)
    assert backoff.next_pause() == 0.5
