"""How should the embedding enter the denoiser?"""
