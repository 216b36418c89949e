"""``python -m adcompile``."""

from adcompile.cli import entry

entry()
