"""guidance components."""
