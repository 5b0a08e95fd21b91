"""From messages to the prompt text of a model: chat templates and the history that fits a context."""
