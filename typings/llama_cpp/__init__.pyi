# What Roost uses of llama-cpp-python; the package itself exists only where that engine was chosen.
