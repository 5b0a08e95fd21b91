"""Models in memory: the engine protocol, its in-process implementation, and the table of loaded models."""
