"""Fixtures for these tests."""

from tests.job_harness import harness, logs

__all__ = ["harness", "logs"]
