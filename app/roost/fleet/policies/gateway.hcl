# Further gateways may do what the agent may, and read the keys of the API and the trained router, which lie with the
# agent's job (`roost.fleet.jobs` names them).
namespace "default" {
  capabilities = ["list-jobs", "read-job", "scale-job", "alloc-lifecycle"]
  variables {
    path "nomad/jobs/roost-agent/agent" {
      capabilities = ["read"]
    }
    path "nomad/jobs/roost-agent/agent/agent" {
      capabilities = ["read"]
    }
    path "<endpoints>" {
      capabilities = ["read", "write"]
    }
  }
}
node {
  policy = "read"
}
