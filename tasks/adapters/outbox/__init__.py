"""Where reports are put: notifications, metrics, the history, the page."""
