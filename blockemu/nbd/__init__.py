"""The NBD protocol without I/O: what both sides share, and the client's half."""
