"""Values and decisions: no disk, clock, network or Prefect."""
