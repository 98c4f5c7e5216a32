"""Model servers that are started when somebody asks, stopped when idle, and replaced when stuck."""
