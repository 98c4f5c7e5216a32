"""What a key may do and what it has used: limits before a request, its account after it."""
