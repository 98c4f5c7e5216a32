# A worker that holds layers of a model server on another host. Rendered by roost.fleet.job_text.render_job.
job "roost-rpc-main-0" {
  type        = "service"
  datacenters = ["dc1"]

  constraint {
    attribute = "${node.unique.name}"
    value     = "second"
  }

  update {
    max_parallel      = 1
    health_check      = "checks"
    min_healthy_time  = "1s"
    healthy_deadline  = "3m"
    progress_deadline = "5m"
    auto_revert       = true
  }

  group "worker" {
    count = 1

    network {
      mode = "host"
      port "rpc" {
        static       = 50052
        host_network = "loopback"
      }
    }

    reschedule {
      delay          = "5s"
      delay_function = "constant"
      unlimited      = true
    }

    restart {
      attempts = 25
      interval = "1m"
      delay    = "2s"
      mode     = "delay"
    }

    service {
      name     = "roost-rpc-main-0"
      port     = "rpc"
      provider = "nomad"
      tags     = ["slot=main"]

      check {
        type     = "tcp"
        interval = "5s"
        timeout  = "3s"
      }
    }

    task "worker" {
      driver = "docker"
      user   = "8362:8362"

      config {
        image           = "roost/llama-server:1"
        entrypoint      = ["/usr/libexec/x86_64-linux-gnu/llama/bin/ggml-rpc-server"]
        force_pull      = false
        network_mode    = "host"
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        init            = true

        # The image's own check asks a model server.
        healthchecks {
          disable = true
        }
        args = [
          "--host",
          "192.0.2.7",
          "--port",
          "50052",
          "--threads",
          "3",
          "--device",
          "CPU",
        ]
      }

      env {
      }

      resources {
        cpu    = 500
        memory = 400
      }

      kill_timeout = "5s"

      logs {
        max_files     = 3
        max_file_size = 10
        disabled      = false
      }
    }
  }
}
