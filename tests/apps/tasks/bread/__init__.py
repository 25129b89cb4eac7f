"""An app with its tasks in a module."""
