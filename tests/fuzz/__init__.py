"""Fuzzing by our own OpenAPI document."""
