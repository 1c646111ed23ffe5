"""The machine around the block layer: its buses, its devices, its drives.  It has no CPU."""
