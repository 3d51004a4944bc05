"""A model small enough for tests."""

from dagan.config import DepthConfig, GeneratorConfig, HourglassConfig, KeypointConfig, ModelConfig, MotionConfig

TINY = ModelConfig(
    name="tiny", image_size=64, motion_size=32,
    depth=DepthConfig(encoder="lite", encoder_widths=(8, 8, 8, 16, 16), decoder_widths=(8, 8, 8, 8, 16)),
    keypoints=KeypointConfig(count=5, landmarks=(13, 14), hourglass=HourglassConfig(width=8, max_width=16, levels=3), kernel=3),
    motion=MotionConfig(hourglass=HourglassConfig(width=8, max_width=16, levels=3), kernel=3, landmark_variance=0.002),
    generator=GeneratorConfig(
        decoder="pyramid", width=8, max_width=32, downs=3, blocks=1, align_depth=True, landmark_variance=0.002,
    ),
)  # fmt: skip
