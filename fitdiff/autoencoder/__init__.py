"""autoencoder components."""
