"""Additively homomorphic encryption: learning with errors over rings, modulo 2^64, on numpy."""
