"""What leaves the process to be read: log lines, metrics, spans. Courtesies: they never raise.

Every wing above writes here, `worker/` most of all. Any thread.
"""
