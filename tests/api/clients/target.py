"""What the client libraries talk to; test_client_libraries.py sets it."""

import os

URL = os.environ["OLLAMA_HOST"]
#: a model that chats, one that also knows tools, an encoder, and one that thinks and calls a tool
MODEL, TOOLS_MODEL, ENCODER, AGENT = os.environ["CLIENT_MODELS"].split()
#: 384 numbers a text, as all-MiniLM-L6-v2 gives them
DIMENSIONS = 384
OPTIONS = {"num_predict": 8, "temperature": 0.0, "seed": 1}


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"11 degrees in {city}"
