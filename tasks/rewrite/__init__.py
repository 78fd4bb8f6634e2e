"""Archives made of archives: a full backup put together from a chain, an export for people without this program."""
