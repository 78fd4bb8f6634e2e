"""What was borrowed, and how it is given back whatever happens."""
