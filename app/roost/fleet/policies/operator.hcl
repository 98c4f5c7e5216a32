# Whoever runs the fleet day by day: jobs, nodes, drains, logs, snapshots. Not the access control itself, nor the
# variables in which jobs get their secrets: for those there is the management token.
namespace "*" {
  policy = "write"
}
node {
  policy = "write"
}
agent {
  policy = "write"
}
operator {
  policy = "write"
}
plugin {
  policy = "read"
}
host_volume "*" {
  policy = "read"
}
