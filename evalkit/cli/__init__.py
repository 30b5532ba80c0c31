"""The command line. Commands import what they need in their bodies, so --help pays for none of it."""

from evalkit.cli.main import main

__all__ = ["main"]
