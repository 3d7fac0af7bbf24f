"""`python -m skinlesion VERB` is `skinlesion VERB`."""

from skinlesion.cli import main

main()
