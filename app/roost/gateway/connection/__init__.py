"""A client's connection: what its requests say in their headers, whether it is still there, and whether it reads."""
