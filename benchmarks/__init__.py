"""Measurements, run by hand: Tally's speed and costs on this machine, beside its limits and its peers."""
