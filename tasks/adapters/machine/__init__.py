"""The host around: volumes as tar, files by their absolute paths, the list of packages."""
