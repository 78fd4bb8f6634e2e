"""One foreign thing each, in our words."""
