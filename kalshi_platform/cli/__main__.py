"""`python -m kalshi_platform.cli`: the command without its script."""

from kalshi_platform.cli.main import main

main()
