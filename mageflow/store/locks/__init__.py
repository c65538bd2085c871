"""Locks in Redis: the lock scripts as typed calls and their typed results."""
