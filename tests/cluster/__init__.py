"""Engines on a real Ray cluster, whose machines are processes of this one."""
