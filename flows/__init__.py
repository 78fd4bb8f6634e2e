"""The methods of the backup guide, one flow to a file."""
