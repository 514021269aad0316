"""`python -m evalpool`."""

from evalpool.cli import main

main()
