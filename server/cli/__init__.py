"""The command line: ``serve`` runs the server, ``starter`` puts a first model into the store."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from server.app import StartError, run, serve, set_up_logging
from server.config import VARIABLES, Config, ConfigError
from server.context import OLLAMA_VERSION
from server.starter import NAME, StarterError, install_starter


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        config = Config.from_env(os.environ)
        set_up_logging(config)
        if chosen.command == "starter":
            install_starter(config.models, os.environ)
        else:
            run(serve(config))
    except (ConfigError, StartError, StarterError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ollamacore", description="An Ollama-compatible model server. Without a command it serves."
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.add_parser(
        "serve",
        help="run the server",
        description="Run the server until SIGINT or SIGTERM.",
        epilog=_variables(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands.add_parser(
        "starter",
        help=f"fetch the starter model and store it as {NAME}",
        description=f"Fetch the starter model (once, about 93 MB) and store it as {NAME}.",
    )
    return parser


def _variables() -> str:
    width = max(map(len, VARIABLES))
    lines = [f"  {name:<{width}}  {meaning}" for name, meaning in VARIABLES.items()]
    return "\n".join(["environment variables:", *lines])


def _version() -> str:
    try:
        own = version("ollamacore")
    except PackageNotFoundError:  # run from a source tree that is not installed
        own = "(not installed)"
    return f"ollamacore {own}, Ollama API {OLLAMA_VERSION}"
