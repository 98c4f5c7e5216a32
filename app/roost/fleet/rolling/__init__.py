"""A rolling update: in which order, what a machine had before, how it goes back, how servers are begun anew."""
