"""What one trained checkpoint can do besides fitting: sample, vary, interpolate, edit, complete, tell its spread."""
