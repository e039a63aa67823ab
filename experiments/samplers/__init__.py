"""Samplers side by side."""
