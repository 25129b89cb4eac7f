"""The daemon: a message from its receipt to its delete, the watches, the stop. ARCHITECTURE.md lists its threads."""
