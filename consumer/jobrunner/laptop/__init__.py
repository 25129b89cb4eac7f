"""Development only: everything on one machine, started again when code changes. Main thread of a command."""
