"""Archives and records as an enemy, or a bad disk, would make them (P10); each is refused by an error of ours."""
