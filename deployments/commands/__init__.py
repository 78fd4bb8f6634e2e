"""The commands of `mailarchiver-backup`, in files by what they are for. Thin: read options, call a flow, show its result."""
