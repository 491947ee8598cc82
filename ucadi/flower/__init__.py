"""Federation on Flower: its messages carry what a courier carries. Sites and coordinator do what they do without it."""
