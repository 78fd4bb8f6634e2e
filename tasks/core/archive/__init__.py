"""What an archive is: its names, its members, its manifest."""
