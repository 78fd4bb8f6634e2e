"""For whom a run works: an installation's settings, its lock, its history."""
