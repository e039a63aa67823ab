"""alignment components."""
