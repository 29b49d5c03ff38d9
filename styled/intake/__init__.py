"""Turns files in the inbox into jobs: watch, scan, settle, and pair files with styles."""
