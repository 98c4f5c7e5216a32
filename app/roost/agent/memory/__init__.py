"""What a key has remembered: facts with source and time, found by words and by meaning, and forgotten for good."""
