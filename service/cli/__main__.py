"""`python -m service.cli` is `barprop`."""

from service.cli import main

main()
