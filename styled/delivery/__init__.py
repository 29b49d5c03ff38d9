"""Publishes results, sidecars, originals and the gallery as complete files."""
