"""Signatures, chains and swarms in Redis: the operations over them and their typed results."""
