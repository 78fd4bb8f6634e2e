"""Proxmox VE and Proxmox Backup Server, as their published APIs have them; spoken to with proxmoxer."""
