"""What leaves the process to be read: log lines and metrics. Courtesies: they never raise. Any thread."""
