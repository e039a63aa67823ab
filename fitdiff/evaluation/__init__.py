"""How good an avatar is: metrics against synthetic truth."""
