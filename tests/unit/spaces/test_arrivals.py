from dxos.spaces.arrivals import Arrivals


def test_what_was_announced_is_counted_until_all_of_it_has_come() -> None:
    arrivals = Arrivals()
    assert not arrivals.tell()
    arrivals.expect(["a", "b"])
    assert arrivals.tell()
    assert arrivals.told == (0, 2)
    arrivals.settle("a")
    arrivals.settle("a")
    arrivals.settle("of nobody")
    assert arrivals.tell()
    assert arrivals.told == (1, 2)
    arrivals.settle("b")
    assert arrivals.tell()
    assert arrivals.told is None
    assert not arrivals.tell()


def test_a_second_peer_adds_what_the_first_did_not_announce() -> None:
    arrivals = Arrivals()
    arrivals.expect(["a", "b"])
    arrivals.settle("a")
    arrivals.expect(["b", "c"])
    assert arrivals.tell()
    assert arrivals.told == (1, 3)
    arrivals.clear()
    assert arrivals.told is None
    arrivals.expect(["c"])
    assert arrivals.tell()
    assert arrivals.told == (0, 1)


def test_a_hundredth_is_news_and_a_single_document_of_many_is_not() -> None:
    arrivals = Arrivals()
    ids = [str(number) for number in range(1000)]
    arrivals.expect(ids)
    told = []
    for one in ids:
        if arrivals.tell():
            told.append(arrivals.told)
        arrivals.settle(one)
    assert told == [(done, 1000) for done in range(0, 1000, 10)]
