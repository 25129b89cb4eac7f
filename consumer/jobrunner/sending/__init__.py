"""The web app's side: puts calls on the queue, or runs them at once under `inline:`. The app's own threads."""
