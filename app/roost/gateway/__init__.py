"""The OpenAI-compatible service in front of the model servers."""
