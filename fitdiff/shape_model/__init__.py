"""shape_model components."""
