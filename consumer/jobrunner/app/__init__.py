"""The app's code: opened, catalogued, entered, called. Main thread to load it, workers' threads to call it."""
