"""Operations: logs, metrics, systemd, heartbeats, disk space, the instance lock, and checks."""
