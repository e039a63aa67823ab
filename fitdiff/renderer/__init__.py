"""renderer components."""
