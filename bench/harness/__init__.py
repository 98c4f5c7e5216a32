"""How often work gets finished by small models: with Roost's harness, and with a plain tool loop beside it."""
