"""What can be seen of the daemon from outside: logs and the lock that names its owner."""
