"""Federated averaging on numpy: updates, fixed point, sums, the next model."""
