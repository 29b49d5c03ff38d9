"""Engines on many GPUs and machines, by Ray. Nothing outside this package imports ray."""
