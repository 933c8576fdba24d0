"""The command line: parse, call, print. The only package that prints."""

from camcli.cli import clock  # noqa: F401 - it takes the time before other imports
