"""What is to be done: jobs, the journal that remembers them, and the worker that does them."""
