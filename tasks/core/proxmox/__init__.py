"""Proxmox VE and its backup server: what their answers mean, and what follows from them."""
