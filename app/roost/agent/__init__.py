"""The agent: trio, tools, guards, sessions, memory. It reaches models through the OpenAI-compatible API only."""
