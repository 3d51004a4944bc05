"""A job that is watched: how far it is, stopped by whoever watches, and by nobody watching."""

import asyncio
import threading
import time

import pytest

from dagan.app.runs import Run, Turns, watched
from dagan.errors import InputError


def counting(ended: threading.Event, count: int = 10_000):
    def job(progress):
        try:
            for i in range(count):
                progress("drawing", i, count)
                time.sleep(0.002)
            return "done"
        finally:
            ended.set()

    return job


def run_of(job, patience=8.0, most=100_000):
    return Run(job, {"reading": 0.25, "drawing": 0.75}, most, lambda done: InputError(f"{done} are too many"), patience)


def test_shares_of_stages_make_one_bar():
    run = run_of(lambda progress: None)
    assert [run._share(*at) for at in (("reading", 5, 10), ("drawing", 0, 10), ("drawing", 10, 10), ("?", 1, 1))] == [0.125, 0.25, 1.0, 0.0]


def test_a_job_ends_and_gives_its_result():
    async def steps():
        return [step async for step in watched(run_of(counting(threading.Event(), 300)), Turns(), "a")]

    found = asyncio.run(steps())
    assert found[-1].result == "done"
    assert any(0.25 < step.done < 1 for step in found[:-1])


def test_stopping_a_job_frees_its_place():
    ended, turns = threading.Event(), Turns()

    async def steps():
        run = run_of(counting(ended))
        found = []
        async for step in watched(run, turns, "a"):
            found.append(step)
            run.stop()
        assert ended.is_set()
        return found[-1]

    assert asyncio.run(steps()).stopped
    assert turns.free == 1


def test_a_watcher_who_leaves_stops_the_job():
    ended, turns = threading.Event(), Turns()

    async def steps():
        iterator = watched(run_of(counting(ended)), turns, "a")
        await anext(iterator)
        await anext(iterator)
        await iterator.aclose()

    asyncio.run(steps())
    assert ended.is_set()
    assert turns.free == 1


def test_a_job_that_nobody_looks_at_stops_by_itself():
    ended = threading.Event()
    run = run_of(counting(ended), patience=0.2)
    run.start()
    assert ended.wait(5)


def test_a_job_is_stopped_where_there_are_more_frames_than_its_header_said():
    run = run_of(counting(threading.Event()), most=5)
    run.start()
    run._thread.join()
    with pytest.raises(InputError, match="6 are too many"):
        run.look()
