"""FitDiff: relightable 3D faces from photos by guided latent diffusion (WACV 2025), as an open framework."""
