"""Processes: how they are started, watched, restarted and stopped."""
