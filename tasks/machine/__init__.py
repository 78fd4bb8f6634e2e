"""The host around backed up and restored: volumes, compose projects, images, files."""
