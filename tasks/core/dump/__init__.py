"""What a dump says: its events, its statements, its census."""
