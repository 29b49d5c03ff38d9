"""Weights and style images in the object store, from which each node fetches them once."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Any

import ray

from styled.cluster.engine_actor import EngineSettings
from styled.cluster.placement import Placement
from styled.config import EngineConfig
from styled.engine.weights import load_weights
from styled.engine_api import EngineInfo, OnBytes
from styled.precision_record import PrecisionRecord

STYLE_FILES = 64
"""Maximum number of style images that are kept in the object store."""


class SharedObjects:
    """The weights and style images, and the settings of engines; thread-safe.

    Attributes:
        weights_source: `imagenet`, `untrained` or a file's path; known after `weights`.
    """

    def __init__(self, config: EngineConfig, record: PrecisionRecord, on_bytes: OnBytes) -> None:
        """Make engines as `config` says.

        Args:
            config: The section `engine`.
            record: Stores measured precisions, so that all engines of a kind use the same.
            on_bytes: Called while weights are downloaded.
        """
        self._config = config
        self._record = record
        self._on_bytes = on_bytes
        self._lock = threading.Lock()
        self._weights: ray.ObjectRef[Any] | None = None
        self._styles: OrderedDict[str, ray.ObjectRef[Any]] = OrderedDict()
        self.weights_source = ""

    def reset(self) -> None:
        """Forget all references: they are those of a connection that was lost."""
        with self._lock:
            self._weights = None
            self._styles.clear()

    def weights(self) -> ray.ObjectRef[Any]:
        """Return a reference to the weights, which are loaded at the first call.

        Raises:
            WeightsError: they are not available.
        """
        with self._lock:
            if self._weights is None:
                weights = load_weights(self._config.weights, self._on_bytes)
                self.weights_source = weights.source
                self._weights = ray.put(weights)
            return self._weights

    def style(self, data: bytes) -> ray.ObjectRef[Any]:
        """Return a reference to the content of a style image's file."""
        key = hashlib.sha256(data).hexdigest()
        with self._lock:
            if key not in self._styles:
                self._styles[key] = ray.put(data)
                if len(self._styles) > STYLE_FILES:
                    self._styles.popitem(last=False)
            self._styles.move_to_end(key)
            return self._styles[key]

    def engine_settings(self, placement: Placement) -> EngineSettings:
        """Return the settings of an engine."""
        return EngineSettings(
            self._config,
            placement.node.name,
            placement.threads,
            placement.gpus > 0,
            self._record.all() if self._config.precision == "auto" else {},
        )

    def record_precision(self, info: EngineInfo) -> None:
        """Record the precision that an engine has measured, for later engines of its kind."""
        is_measured = self._config.precision == "auto"
        if is_measured and self._record.find(info.device_model, info.torch) is None:
            self._record.remember(info.device_model, info.torch, info.precision)
