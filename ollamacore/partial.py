"""Text that may still become a tag or a stop string: how much of it to hold back."""


def overlap(text: str, tag: str) -> int:
    """Length of the longest proper prefix of `tag` that ends `text`."""
    at = text.find(tag[0], max(len(text) - len(tag) + 1, 0))
    while at >= 0 and not tag.startswith(text[at:]):
        at = text.find(tag[0], at + 1)
    return len(text) - at if at >= 0 else 0
