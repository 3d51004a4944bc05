"""Who comes next: everybody in turn, and whoever leaves makes room at once."""

import asyncio

import pytest

from dagan.app.runs import Turns
from dagan.errors import InputError


def run(steps):
    return asyncio.run(steps())


def test_a_visitor_with_many_jobs_does_not_keep_another_waiting():
    async def steps():
        turns, served, everybody_waits = Turns(), [], asyncio.Event()

        async def job(name):
            async with turns.place(name) as place:
                await place.called.wait()
                served.append(name)
                await everybody_waits.wait()

        jobs = [asyncio.create_task(job(name)) for name in "aaaabc"]
        while turns.waiting < 5:
            await asyncio.sleep(0)
        everybody_waits.set()
        await asyncio.gather(*jobs)
        return served

    assert run(steps) == ["a", "b", "c", "a", "a", "a"]


def test_who_leaves_makes_room_whether_waiting_or_working():
    async def steps():
        turns = Turns()
        async with turns.place("a") as first:
            assert first.called.is_set()
            async with turns.place("b") as second:
                assert not second.called.is_set()
                assert turns.before(second) == 0
                assert turns.waiting == 1
            assert turns.waiting == 0
        with pytest.raises(ZeroDivisionError):
            async with turns.place("c"):
                raise ZeroDivisionError
        assert (turns.free, turns.waiting) == (1, 0)

    run(steps)


def test_too_many_are_told_so():
    async def steps():
        turns = Turns(most=2, most_each=2)
        async with turns.place("a"), turns.place("b"), turns.place("b"):
            with pytest.raises(InputError, match=r"too many jobs wait \(2\)"):
                async with turns.place("c"):
                    pass

    run(steps)
