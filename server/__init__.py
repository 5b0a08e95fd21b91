"""The Ollama-compatible server; see docs/architecture.md."""
