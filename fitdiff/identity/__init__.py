"""Face-recognition networks: aligned crop -> identity embedding and intermediate activations."""

from fitdiff.identity import arcface, dlib_resnet, facenet

__all__ = ["arcface", "dlib_resnet", "facenet"]
