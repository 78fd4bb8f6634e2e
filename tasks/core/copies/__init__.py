"""What copies of backups at other places are: parts, plans, what was sent, and what the rules ask for."""
