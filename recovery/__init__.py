"""Recovery of lost data: from the stream, from an outbox, from a copy."""
