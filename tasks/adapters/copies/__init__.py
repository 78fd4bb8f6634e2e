"""Copies of backups at other places: rclone, what lies there, and what was sent."""
