"""Which endpoint gets a request, in what order requests wait for one, and how a broken stream goes on."""
