"""What happens in a conversation, told while it happens: numbered, kept for who comes back, by SSE or WebSocket."""
