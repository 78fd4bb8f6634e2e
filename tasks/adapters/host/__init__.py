"""This host: files, locks, journals, processes, the settings file."""
