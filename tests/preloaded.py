"""What the fork server of `tests.studio` makes once, for all programs that are forked from it."""

from __future__ import annotations

import gc
import os
import time

from styled.engine import local, weights
from styled.engine.objective import Losses
from styled.engine.stage import Stage
from tests.engine.conftest import SHALLOW, untrained

weights.untrained = untrained
untrained()  # a second of work
local.WARM_UP = SHALLOW  # another half; starts from scratch run the network as it is
_advance = Stage.advance


def _take_time(stage: Stage) -> Losses:
    """Take a step, after as long as a test wants it to last: that costs others no time."""
    time.sleep(float(os.environ.get("STYLED_TESTS_STEP_SECONDS", "0")))
    return _advance(stage)


Stage.advance = _take_time  # type: ignore[method-assign, assignment]  # the point of it
gc.collect()
gc.freeze()  # what is never looked at again is never copied into those that are forked
