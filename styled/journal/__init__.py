"""The journal: the SQLite database that holds the queue."""
