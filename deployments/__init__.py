"""What a machine needs to run us: command line, settings, demo, services."""

import os

from tasks.collector import collect_seldom

# Before Prefect is imported anywhere: our loggers also speak outside flow runs, where Prefect has nothing to store them for.
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
# Prefect's library would tell its makers that it is used, from every process that imports it.
os.environ.setdefault("DO_NOT_TRACK", "1")

collect_seldom()
