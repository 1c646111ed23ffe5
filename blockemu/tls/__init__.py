"""Encrypted connections: credentials as objects, their checks, sessions."""
