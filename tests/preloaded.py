"""What the fork server of `tests.studio` makes once, for all programs that are forked from it."""

from __future__ import annotations

import gc

from styled.engine import local, weights
from tests.engine.conftest import SHALLOW, untrained

weights.untrained = untrained
untrained()  # a second of work
local.WARM_UP = SHALLOW  # another half; starts from scratch run the network as it is
gc.collect()
gc.freeze()  # what is never looked at again is never copied into those that are forked
