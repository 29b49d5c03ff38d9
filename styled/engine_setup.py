"""Creates the engine that a configuration describes."""

from __future__ import annotations

import torch

from styled.config import EngineConfig
from styled.engine.device import choose_device
from styled.engine.local_engine import LocalEngine
from styled.engine.weights import Weights, load_weights
from styled.engine_api import OnBytes
from styled.precision_record import KnownPrecisions, PrecisionRecord

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def make_engine(
    config: EngineConfig,
    on_bytes: OnBytes,
    record: PrecisionRecord | KnownPrecisions | None = None,
    threads: int | None = None,
    weights: Weights | None = None,
) -> LocalEngine:
    """Create the engine; call this in the thread that will paint.

    Args:
        config: The section `engine`.
        on_bytes: Called while weights are downloaded, see `OnBytes`.
        record: Stores the precision measured for `precision: auto`. None: always measure.
        weights: The weights, if they are loaded already.
        threads: Thread count where `config` sets none. None: torch's own choice in this thread.

    Raises:
        WeightsError, DeviceError, ConfigError: the engine can't be created.
    """
    device = choose_device(config.device, deterministic=config.deterministic)
    if weights is None:
        weights = load_weights(config.weights, on_bytes)
    recorded = None
    if config.precision == "auto" and record is not None:
        recorded = record.find(device.model, torch.__version__)
    engine = LocalEngine(
        weights,
        device,
        config.precision,
        memory_limit=config.memory_bytes,
        threads=config.thread_count or threads,
        deterministic=config.deterministic,
        faster_dtype=None if recorded is None else _DTYPES[recorded],
    )
    if config.precision == "auto" and record is not None and recorded is None:
        record.remember(device.model, torch.__version__, engine.info.precision)
    return engine
