"""One module per family of endpoints. A handler takes the request and the context and returns a response."""
