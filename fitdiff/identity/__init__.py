"""identity components."""
