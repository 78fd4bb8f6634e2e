"""Looking after the backups: status, notifications, retention, the nightly run."""
