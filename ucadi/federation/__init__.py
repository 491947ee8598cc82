"""Commands that run other commands, round after round. All state is in files, so each may be killed at any moment."""
