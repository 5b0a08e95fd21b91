"""The Ollama-compatible HTTP server over the ollamacore library."""
