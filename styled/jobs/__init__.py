"""The scheduler: what happens to each job, in which order, and on which engine."""
