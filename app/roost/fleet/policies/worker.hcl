# What runs agents and tools on a node, outside of jobs: it finds the hub, and changes nothing.
namespace "default" {
  capabilities = ["list-jobs", "read-job"]
}
node {
  policy = "read"
}
