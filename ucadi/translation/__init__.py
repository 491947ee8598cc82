"""A scan with contrast as if without, and the reverse: GANs between two kinds of CT (torch; the recipe without it)."""
