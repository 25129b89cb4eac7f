"""jobrunner's library: each file a room, its first line says what lives there and on which thread it runs."""
