"""What the tests share: engines, a running Tally, and waiting for conditions."""
