"""One module, one command: a function on files."""
