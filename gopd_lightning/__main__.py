"""`python -m gopd_lightning` is the `gopd` command."""

from gopd_lightning.cli import main

main()
