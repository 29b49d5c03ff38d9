"""Tests of the gallery page in a browser."""
