"""`python -m nbproof`: the command, where no script of that name is on the PATH."""

from nbproof.cli import main

main()
