"""One diffusion model, or one of shape and one of reflectance?"""
