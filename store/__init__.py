"""Where state lives: the SQLite files and the Redis stream. Knows nothing of HTTP or processes."""
