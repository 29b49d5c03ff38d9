"""What the queue has done by threads: reading, publishing, moving and deleting files."""
