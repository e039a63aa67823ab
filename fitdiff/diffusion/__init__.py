"""diffusion components."""
