"""Networks are opened by several threads at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from dagan.media.landmarks import FaceLandmarker


def test_the_error_stream_survives_networks_that_are_opened_side_by_side() -> None:
    before = os.fstat(2)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: FaceLandmarker(), range(24)))
    assert os.path.samestat(os.fstat(2), before)
