"""From a photo to what fitting needs: detection, landmarks, aligned crops and a first camera."""
