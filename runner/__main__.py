"""`python -m runner` is `autoresearch`."""

from runner.cli import main

main()
