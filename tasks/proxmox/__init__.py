"""The system around Mail Archiver under Proxmox: its guests backed up, and their backups seen."""
