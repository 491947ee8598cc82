"""Where a network saw what it says: heatmaps, and tests of them."""
