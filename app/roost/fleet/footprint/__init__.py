"""What a machine is like, in hashes: so that a run sees by one look that the last one left nothing to do."""
