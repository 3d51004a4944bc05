"""Runs the command line."""

from dagan.cli import main

main()
