"""What an installation is, and how it is told from what Docker and the compose files say."""
