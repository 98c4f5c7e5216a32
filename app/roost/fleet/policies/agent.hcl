# What the agent may do with its workload identity: see which model servers there are, start and stop them by their
# count, and have a stuck one replaced; what load the hosts have; and keep the endpoints that were added by hand. It can
# define no job. Its own variables are readable by default
# (https://developer.hashicorp.com/nomad/docs/concepts/workload-identity).
namespace "default" {
  capabilities = ["list-jobs", "read-job", "scale-job", "alloc-lifecycle"]
  variables {
    path "<endpoints>" {
      capabilities = ["read", "write"]
    }
  }
}
node {
  policy = "read"
}
