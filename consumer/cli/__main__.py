"""`python -m consumer.cli`: how our own processes start others of us; main thread."""

from consumer.cli import main

main()
