# What saves Nomad's state on each server by itself. It may do nothing else, though what it gets holds every token of
# Nomad: snapshots are root's.
operator {
  capabilities = ["snapshot-save"]
}
