r"""The command line: parses, calls, prints."""

from bitgnn.cli.app import main

__all__ = ["main"]
