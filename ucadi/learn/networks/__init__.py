"""The networks, and how they are found by name."""
