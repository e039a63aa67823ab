"""From a photo to what fitting needs: detection, landmarks, aligned crops and a first camera."""

from fitdiff.alignment import dlib68, fan, mtcnn

__all__ = ["dlib68", "fan", "mtcnn"]
