"""Installations as they are on this host."""
