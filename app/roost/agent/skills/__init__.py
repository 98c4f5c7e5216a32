"""Skills of a key: ways that worked, as Markdown files with a head; saved, searched, suggested, removed."""
