"""From the files of a photo and its style to an engine's tensors, and from a painting to a file."""
