"""Steps that overlap: order kept, never far ahead, nothing left running."""

import threading
import time

import pytest
import torch

from dagan.stream import ahead, mapped, on_workers


def stage_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("dagan-stage")]


class Source:
    """Counts how many items were taken, and knows when it was closed."""

    def __init__(self, count, fail_at=None):
        self.count, self.fail_at, self.taken, self.closed = count, fail_at, 0, False

    def __iter__(self):
        try:
            for i in range(self.count):
                if i == self.fail_at:
                    raise OSError("the disk is gone")
                self.taken += 1
                yield i
        finally:
            self.closed = True


def double(x):
    return 2 * x


def test_all_items_come_in_order():
    assert list(ahead(Source(50), 3)) == list(range(50))
    assert list(ahead([], 3)) == []

    def uneven(x):
        time.sleep(0.004 if x % 3 == 0 else 0)
        return 2 * x

    assert list(mapped(uneven, ahead(Source(30)), 3)) == [2 * i for i in range(30)]
    assert not stage_threads()


def test_a_slow_writer_holds_the_reader_back():
    source = Source(1000)
    for i, _ in enumerate(mapped(double, ahead(source, 4), 2)):
        time.sleep(0.01)
        assert source.taken <= i + 1 + 2 + 4 + 1  # given out, in workers' hands, read ahead, and the one being read
        if i == 15:
            break
    assert source.taken < 30


def test_a_slow_reader_starves_nobody():
    def slow():
        for i in range(5):
            time.sleep(0.02)
            yield i

    began = time.monotonic()
    computed = []
    for item in mapped(double, ahead(slow()), 2):
        computed.append((item, time.monotonic() - began))
    assert [item for item, _ in computed] == [0, 2, 4, 6, 8]


def test_stages_overlap():
    """A reader, a computation and a consumer of 20 ms each: together, not one after the other."""

    def slow():
        for i in range(10):
            time.sleep(0.02)
            yield i

    def compute(x):
        time.sleep(0.02)
        return x

    began = time.monotonic()
    for _ in mapped(compute, ahead(slow()), 1):
        time.sleep(0.02)
    assert time.monotonic() - began < 0.45  # 0.6 one after the other, 0.24 at best


@pytest.mark.parametrize("stage", ["reader", "work", "consumer"])
def test_a_failing_stage_ends_all(stage):
    def work(x):
        if stage == "work" and x == 7:
            raise OSError("the disk is gone")
        return x

    source = Source(1000, fail_at=7 if stage == "reader" else None)
    seen = []

    def consume():
        for item in mapped(work, ahead(source), 2):
            seen.append(item)
            if stage == "consumer" and item == 6:
                raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        consume()
    assert seen == list(range(7))
    assert not stage_threads()
    assert source.closed


def test_an_interrupt_leaves_no_thread():
    source = Source(1000)

    def interrupted():
        for item in mapped(double, ahead(source), 2):
            if item == 6:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not stage_threads()
    assert source.closed


def test_closing_early_closes_the_source():
    source = Source(100)
    items = ahead(source)
    assert next(items) == 0
    items.close()
    assert source.closed
    assert not stage_threads()
    assert source.taken < 6


def test_workers_keep_to_one_core_and_leave_the_setting_as_it_was():
    before = torch.get_num_threads()
    seen = set(on_workers(2, lambda _: torch.get_num_threads(), range(6)))
    assert seen == {1}
    assert torch.get_num_threads() == before
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [before]
    assert list(on_workers(1, double, range(4))) == [0, 2, 4, 6]
