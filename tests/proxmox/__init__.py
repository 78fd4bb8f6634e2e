"""A Proxmox for tests: fakepve as a program of its own, and in front of it what backups do."""
