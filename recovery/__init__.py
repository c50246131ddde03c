"""What brings back what was lost: from the stream, from an outbox, from a copy."""
