"""What the graph offers to others: nodes, by NBD."""
