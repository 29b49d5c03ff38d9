"""The job queue: jobs, the journal that stores them, and the scheduler that processes them."""
