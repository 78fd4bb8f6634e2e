"""Guests of this host backed up and restored as a whole, where no Proxmox does it."""
