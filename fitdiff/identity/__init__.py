"""Face-recognition networks: aligned crop -> identity embedding and intermediate activations."""

from fitdiff.identity import dlib_resnet

__all__ = ["dlib_resnet"]
