# A model server: one slot, one model. Rendered by roost.fleet.job_text.render_job.
job "roost-model-main" {
  type        = "service"
  datacenters = ["dc1"]

  # Where the start log must show how many layers; the playbook and `roost doctor` compare.
  meta {
    roost_gpu_layers = "Vulkan0=31"
    roost_gpu_slots = "0000:41:00.0"
  }

  update {
    max_parallel      = 1
    health_check      = "checks"
    min_healthy_time  = "1s"
    healthy_deadline  = "180s"
    progress_deadline = "300s"
    auto_revert       = true
  }

  group "engine" {
    # While it runs the agent scales it between 0 and 1; a playbook run keeps what it finds (fleet/deploy.py).
    count = 1

    # The agent sees that the service is gone, and has the slots saved before the server is told to end.
    shutdown_delay = "3s"

    network {
      mode = "host"
      port "http" {
        host_network = "loopback"
      }
    }

    # A restarted Nomad may fail what runs (its client asks the server before that can check identities): begin anew
    # at once instead of after half a minute.
    reschedule {
      delay          = "5s"
      delay_function = "constant"
      unlimited      = true
    }

    # Never give up, and never wait long: after a reboot Docker may still be starting.
    restart {
      attempts = 25
      interval = "1m"
      delay    = "2s"
      mode     = "delay"
    }

    volume "models" {
      type      = "host"
      source    = "roost-models"
      read_only = true
    }

    volume "slots" {
      type      = "host"
      source    = "roost-slots"
      read_only = false
    }

    service {
      name     = "roost-model-main"
      port     = "http"
      provider = "nomad"
      tags = [
        "engine=llama.cpp",
        "slot=main",
        "model=smollm2-135m-instruct",
        "tier=embedded",
        "memory=host:536870912",
        "keeps_slots=true",
      ]

      check {
        type     = "http"
        path     = "/health"
        interval = "5s"
        timeout  = "3s"
      }
    }

    task "engine" {
      driver = "docker"
      user   = "8362:8362"

      config {
        image           = "roost/llama-server:1"
        force_pull      = false
        network_mode    = "host"
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        init            = true
        runtime         = "nvidia"
        args = [
          "--model",
          "/models/b179c9523d0e6a0f/SmolLM2-135M-Instruct.Q4_1.gguf",
          "--alias",
          "smollm2-135m-instruct",
          "--host",
          "127.0.0.1",
          "--port",
          "${NOMAD_PORT_http}",
          "--ctx-size",
          "16384",
          "--parallel",
          "2",
          "--cache-ram",
          "256",
          "--fit",
          "off",
          "--flash-attn",
          "on",
          "--gpu-layers",
          "31",
          "--device",
          "Vulkan0",
          "--split-mode",
          "none",
          "--main-gpu",
          "0",
          "--slot-save-path",
          "/slots",
          "--api-key-file",
          "${NOMAD_SECRETS_DIR}/engine-key",
          "--metrics",
          "--no-ui",
          "--offline",
          "--log-verbosity",
          "4",
          "--threads",
          "3",
        ]
      }

      volume_mount {
        volume      = "models"
        destination = "/models"
        read_only   = true
      }

      volume_mount {
        volume      = "slots"
        destination = "/slots"
        read_only   = false
      }

      env {
        GGML_VK_VISIBLE_DEVICES = "0"
        NODEVICE_SELECT = "1"
        NVIDIA_DRIVER_CAPABILITIES = "compute,utility,graphics"
        NVIDIA_VISIBLE_DEVICES = "1"
        __GL_SHADER_DISK_CACHE = "1"
        __GL_SHADER_DISK_CACHE_PATH = "/slots"
      }

      # Where the image's own health check looks; Nomad chooses the port when the task starts.
      template {
        destination = "${NOMAD_TASK_DIR}/health.url"
        data        = "http://{{ env \"NOMAD_ADDR_http\" }}/health"
        change_mode = "noop"
      }

      # The key without which the model server answers nobody; Nomad hands it to this job only.
      template {
        destination = "${NOMAD_SECRETS_DIR}/engine-key"
        data        = "{{ with nomadVar \"nomad/jobs/roost-model-main\" }}{{ .engine_key }}{{ end }}"
        uid         = 8362
        gid         = 8362
        perms       = "0400"
        change_mode = "restart"
      }

      resources {
        cpu    = 500
        memory = 512
      }

      kill_timeout = "15s"

      logs {
        max_files     = 3
        max_file_size = 10
        disabled      = false
      }
    }
  }
}
