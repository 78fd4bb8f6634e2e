"""Archives as files: written, read, extracted; the repository that holds them."""
