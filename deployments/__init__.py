"""What a machine needs to run the flows: command line, settings, demo, services."""
