"""What a person types: the only code that prints, and the only map from errors to exit codes."""
