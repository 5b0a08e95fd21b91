"""``python -m server``: the command line, with ``serve`` as the default command."""

import sys

from server.cli import main

if __name__ == "__main__":
    sys.exit(main())
