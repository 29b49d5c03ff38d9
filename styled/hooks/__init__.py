"""The user's commands for jobs that have ended."""
