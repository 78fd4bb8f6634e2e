"""Thin Prefect steps, and the context managers that give back what a flow borrows."""
