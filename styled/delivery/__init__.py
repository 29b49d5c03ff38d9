"""From a result to files that others may rely on."""
