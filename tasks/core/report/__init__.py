"""What is told: texts, charts, the catalogue."""
