"""What a machine is and what is wrong with it: hardware facts, preflight, doctor findings."""
