"""The commands, with the code that only they use: look, list, import, rebuild, back up."""
