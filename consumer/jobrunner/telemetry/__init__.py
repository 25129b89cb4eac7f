"""What leaves the process to be read: log lines, metrics, spans. Courtesies: they never raise. Any thread."""
