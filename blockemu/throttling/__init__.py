"""How fast disks and jobs may be: limits, leaky buckets, groups that share them."""
