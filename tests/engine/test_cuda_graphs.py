"""When a function is recorded, and what happens where it cannot be. (Recording itself needs a CUDA device.)"""

import pytest
import torch

from dagan.engine.torch import Replayed, TorchEngine, record_graph
from running_samples import moving_pictures, tiny_model


def double(x):
    return (2 * x,)


def test_a_shape_that_comes_back_is_recorded_once():
    recorded = []

    def record(function, inputs):
        recorded.append(inputs[0].shape)
        return lambda x: (*function(x), torch.tensor(1.0))  # tells a replay from a plain call

    replayed = Replayed(double, record)
    lengths = [len(replayed(torch.ones(3))) for _ in range(5)]
    assert lengths == [1, 1, 2, 2, 2]
    assert len(replayed(torch.ones(4))) == 1  # another shape starts anew
    assert recorded == [torch.Size([3])]
    assert (replayed(torch.full((3,), 5.0))[0] == 10).all()


def test_what_cannot_be_recorded_runs_as_it_is():
    def record(function, inputs):
        raise torch.OutOfMemoryError("no room")

    replayed = Replayed(double, record)
    assert [float(replayed(torch.tensor(float(i)))[0]) for i in range(6)] == [0, 2, 4, 6, 8, 10]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_graph_computes_what_the_function_does():
    replay = record_graph(lambda x: (torch.sin(x) * 2,), (torch.zeros(8, device="cuda"),))
    first, second = (torch.rand(8, device="cuda") for _ in range(2))
    results = [replay(first)[0], replay(second)[0]]
    torch.testing.assert_close(results, [torch.sin(first) * 2, torch.sin(second) * 2])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_engine_on_the_gpu_repeats_itself():
    pictures = moving_pictures(4)
    engine = TorchEngine(tiny_model().to("cuda"), batch_size=4)
    source = engine.encode(pictures[0])
    keypoints = [engine.keypoints(pictures) for _ in range(5)]  # plain calls, then replays
    drawn = [engine.render(source, keypoints[0]) for _ in range(5)]
    for later in keypoints[1:]:
        torch.testing.assert_close(later.value, keypoints[0].value, atol=1e-4, rtol=0)
    for later in drawn[1:]:
        assert abs(later.astype(int) - drawn[0]).max() <= 1
