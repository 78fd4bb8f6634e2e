"""The steps of a backup."""
