"""What the commands do that are no processes of their own: look, list, import, rebuild, back up."""
