"""ucadi as a Flower app."""
