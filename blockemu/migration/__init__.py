"""Migration: a machine's state leaves for another program, or comes from one."""
