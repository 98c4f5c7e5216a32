"""What agents did, as a chain of hashes: nothing can be changed, left out or added later without being found."""
