"""What commands and rounds both do, over formats, networks and volumes; no command, and no file of a round."""
