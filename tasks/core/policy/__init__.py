"""What is wanted: settings, retention, what is due, what fits."""
