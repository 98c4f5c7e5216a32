"""The page in the browser; uses only the public API."""
