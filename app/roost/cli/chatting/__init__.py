"""The terminal chat: Markdown as it comes, what the agent does, line editing. Imported where somebody sits there."""
