"""What happens in a round: contributing, collecting and opening, on the values of files."""
