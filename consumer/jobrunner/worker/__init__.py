"""The daemon: a message from its receipt to its delete, the watches, the stop.

`cli/` comes in by `start`, and the process of a last attempt by `last_attempt`. ARCHITECTURE.md lists the threads.
"""
