"""Docker and Compose."""
