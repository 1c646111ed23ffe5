"""What object-add makes, and the tree that all objects are in."""
