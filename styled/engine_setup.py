"""Makes the engine that a configuration describes."""

from __future__ import annotations

import torch

from styled.config import EngineConfig
from styled.engine.device import choose_device
from styled.engine.download import OnBytes
from styled.engine.local import LocalEngine
from styled.engine.weights import load_weights
from styled.precision_record import PrecisionRecord

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def make_engine(
    config: EngineConfig,
    on_bytes: OnBytes,
    record: PrecisionRecord | None = None,
    threads: int | None = None,
) -> LocalEngine:
    """Load the network onto the device, in the thread that is to paint.

    Args:
        config: The section `engine`.
        on_bytes: Called while weights are downloaded.
        record: Remembers what `precision: auto` was found to mean. None: it is measured.
        threads: Used where `config` leaves their number to torch. None: what torch says in this
            thread.

    Raises:
        WeightsError, DeviceError, ConfigError: it can't be had.
    """
    device = choose_device(config.device, deterministic=config.deterministic)
    weights = load_weights(config.weights, on_bytes)
    known = None
    if config.precision == "auto" and record is not None:
        known = record.find(device.model, torch.__version__)
    engine = LocalEngine(
        weights,
        device,
        config.precision,
        memory_limit=config.memory_bytes,
        threads=config.thread_count or threads,
        deterministic=config.deterministic,
        faster_dtype=None if known is None else _DTYPES[known],
    )
    if config.precision == "auto" and record is not None and known is None:
        record.remember(device.model, torch.__version__, engine.info.precision)
    return engine
