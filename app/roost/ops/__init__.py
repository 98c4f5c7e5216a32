"""Used by every room: errors, commands, settings, secrets, ownership. Imports no other room."""
