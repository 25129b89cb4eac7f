"""`python -m jobrunner`, which is also how our own processes start others of us; main thread."""

from jobrunner.cli import main

main()
