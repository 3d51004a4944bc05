import pytest
import torch

from dagan.config import ModelConfig, preset
from dagan.errors import InputError
from dagan.geometry import ThinPlateTransform, coordinate_grid
from dagan.models.dagan import DaGAN
from dagan.models.keypoints import Keypoints
from tiny import TINY


@pytest.fixture
def model(tiny: ModelConfig) -> DaGAN:
    torch.manual_seed(0)
    return DaGAN(tiny).eval()


def images(batch: int, size: int = 64) -> torch.Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_shapes_and_ranges(model: DaGAN) -> None:
    source = model.encode_source(images(1))
    out = model.drive(source, model.keypoints(images(3)))
    assert out.image.shape == (3, 3, 64, 64)
    assert 0 <= out.image.min() <= out.image.max() <= 1
    assert out.deformation.shape == (3, 32, 32, 2)
    assert out.occlusion.shape == (3, 1, 32, 32)
    assert out.mask.shape == (3, 6, 32, 32)
    torch.testing.assert_close(out.mask.sum(1), torch.ones(3, 32, 32))
    assert (source.disparity is not None) == model.config.use_depth


def test_no_motion_is_an_exact_identity(model: DaGAN) -> None:
    """With the consistent convention, driving a source with its own keypoints looks every place up where it is."""
    source = model.encode_source(images(1))
    out = model.drive(source, source.keypoints)
    torch.testing.assert_close(out.deformation[0], coordinate_grid(32, 32), atol=1e-5, rtol=0)
    if model.config.generator.decoder != "spade":  # whose warped image is occluded too
        torch.testing.assert_close(out.warped, images(1), atol=1e-4, rtol=0)


def test_one_source_serves_a_batch_as_it_serves_each(model: DaGAN) -> None:
    source, keypoints = model.encode_source(images(1)), model.keypoints(images(3))
    together = model.drive(source, keypoints).image
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], model.drive(source, keypoints[i : i + 1]).image, atol=1e-5, rtol=1e-4)


def test_training_forward_rebuilds_what_inference_draws(model: DaGAN) -> None:
    source, driving = images(2), images(2).flip(-1)
    with torch.no_grad():
        made = model(source, driving)
    drawn = model.drive(model.encode_source(source), model.keypoints(driving))
    torch.testing.assert_close(made.output.image, drawn.image, atol=1e-5, rtol=1e-4)


def test_frames_may_have_a_batch_each_and_a_depth_map_of_their_own() -> None:
    """In evaluation mode batches make no difference; in training mode their statistics are those of one frame after the other."""
    torch.manual_seed(0)
    model, source, driving = DaGAN(TINY), images(2), images(2).flip(-1)
    transform = ThinPlateTransform.random(2, 0.2)
    assert model.depth_network is not None
    model.depth_network.eval()
    twin = DaGAN(TINY)
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        pooled, apart = model.eval()(source, driving, transform), model(source, driving, transform, separate_batches=True)
        assert pooled.transformed is not None
        assert apart.transformed is not None
        torch.testing.assert_close(apart.transformed.value, pooled.transformed.value, atol=1e-5, rtol=0)
        anew = model(source, driving, transform, estimate_transformed=True)
        moved = transform.warp_image(driving)
        assert anew.transformed is not None
        torch.testing.assert_close(anew.transformed.value, model.keypoints(moved).value, atol=1e-5, rtol=0)
        assert not torch.allclose(anew.transformed.value, pooled.transformed.value, atol=1e-6)

        detector, network = twin.keypoint_detector.train(), twin.depth_network
        assert network is not None
        network.eval()
        for frame in (source, driving, moved):
            detector(frame, network(frame, scales=1)[0])
        model.keypoint_detector.train()
        model(source, driving, transform, separate_batches=True, estimate_transformed=True)
    norms = [m for m in model.keypoint_detector.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for ours, theirs in zip(norms, [m for m in detector.modules() if isinstance(m, torch.nn.BatchNorm2d)], strict=True):
        torch.testing.assert_close(ours.running_var, theirs.running_var)
        assert int(ours.num_batches_tracked) == 3


def test_every_trained_parameter_gets_a_gradient(tiny: ModelConfig) -> None:
    torch.manual_seed(0)
    model = DaGAN(tiny)
    if model.depth_network is not None:
        model.depth_network.requires_grad_(False)
    if model.generator.attention is not None:
        torch.nn.init.constant_(model.generator.attention.gamma, 0.5)  # at its start of 0 nothing flows behind it
    made = model(images(2), images(2).flip(-1), ThinPlateTransform.random(2))
    (made.output.image.square().mean() + made.transformed.jacobian.square().mean() + made.transformed.value.square().mean()).backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)]
    # Biases before a normalisation cancel exactly.
    assert [n for n in missing if not n.endswith(".conv.bias") and "conv1.bias" not in n and "conv_" not in n] == []


def test_wrong_images_are_refused_in_one_sentence(model: DaGAN) -> None:
    for wrong in (images(1, 32), images(1)[0], images(1).byte(), images(1)[:, :1]):
        with pytest.raises(InputError, match="takes floating point B x 3 x 64 x 64"):
            model.keypoints(wrong)


def test_batches_that_disagree_are_refused(model: DaGAN) -> None:
    keypoints = model.keypoints(images(3))
    with pytest.raises(InputError, match="2 sources for 3 driving frames"):
        model.drive(model.encode_source(images(2)), keypoints)


def test_rgb_twin_has_no_depth() -> None:
    with pytest.raises(InputError, match="no depth network"):
        DaGAN(TINY.rgb_only()).eval().depth(images(1))


def test_bfloat16_stays_close() -> None:
    torch.manual_seed(0)
    model = DaGAN(TINY).eval()
    keypoints = model.keypoints(images(1).flip(-1))
    exact = model.drive(model.encode_source(images(1)), keypoints).image
    model.compute_dtype = torch.bfloat16
    rough = model.drive(model.encode_source(images(1)), keypoints).image
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().mean() < 1 / 255


def test_keypoints_are_the_centre_of_mass_of_their_heatmaps() -> None:
    torch.manual_seed(0)
    model = DaGAN(TINY).eval()
    detector = model.keypoint_detector
    torch.nn.init.zeros_(detector.heatmap.weight)
    found = model.keypoints(images(2))
    torch.testing.assert_close(found.value, torch.zeros(2, 5, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.jacobian, torch.eye(2).expand(2, 5, 2, 2))


@pytest.mark.parametrize("name", ["lite-256", "plus-lite-256"])
def test_lite_keeps_within_its_limits(name: str) -> None:
    """At most 12 GFLOP a driving frame with depth and keypoints, 12 M parameters, 24 MB in half precision."""
    from torch.utils.flop_counter import FlopCounterMode

    model = DaGAN(preset(name)).eval()
    frame = images(1, 256)
    source = model.encode_source(frame)
    with FlopCounterMode(display=False) as counter:
        model.drive(source, model.keypoints(frame))
    assert counter.get_total_flops() <= 12e9
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters <= 12e6
    assert 2 * sum(t.numel() for t in model.state_dict().values()) <= 24e6


def test_keypoints_index_keeps_both_parts() -> None:
    keypoints = Keypoints(torch.rand(4, 5, 2), torch.rand(4, 5, 2, 2))
    assert keypoints[1:3].value.shape == (2, 5, 2)
    assert torch.equal(keypoints[1:3].jacobian, keypoints.jacobian[1:3])
