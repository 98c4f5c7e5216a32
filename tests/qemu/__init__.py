"""A staged Debian root as a virtual machine: its own kernel, clock, power and control groups."""
