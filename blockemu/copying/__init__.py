"""Copying from node to node: the one copy engine, below jobs and copy-before-write."""
