"""Processes: what runs, how it starts, stops, is watched and restarted."""
