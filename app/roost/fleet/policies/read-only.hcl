# Somebody who looks, for Nomad's own page: jobs, allocations, nodes. No logs, no files, no variables: prompts and
# secrets may stand in them.
namespace "*" {
  capabilities = ["list-jobs", "read-job"]
}
node {
  policy = "read"
}
agent {
  policy = "read"
}
operator {
  policy = "read"
}
plugin {
  policy = "list"
}
