"""One file format a module: value to bytes and back."""
