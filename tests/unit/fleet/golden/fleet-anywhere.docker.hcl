# A model server: one slot, one model. Rendered by roost.fleet.job_text.render_job.
job "roost-model-main-2" {
  type        = "service"
  datacenters = ["dc1"]

  # Where the start log must show how many layers; the playbook and `roost doctor` compare.
  meta {
    roost_gpu_layers = "Vulkan0=31"
    roost_gpu_slots = "0000:03:00.0"
    roost_planned = "first"
  }

  # Only where the plan kept room for it, and best where the plan put it: Nomad moves it by itself when a node is lost.
  constraint {
    attribute = "${node.unique.name}"
    operator  = "set_contains_any"
    value     = "first,second"
  }

  affinity {
    attribute = "${node.unique.name}"
    value     = "first"
    weight    = 100
  }

  # Together they outweigh how full machines are: a spare runs it only while the planned one cannot.
  affinity {
    attribute = "${node.unique.name}"
    operator  = "!="
    value     = "first"
    weight    = -100
  }

  update {
    max_parallel      = 1
    health_check      = "checks"
    min_healthy_time  = "1s"
    healthy_deadline  = "180s"
    progress_deadline = "300s"
    auto_revert       = true
  }

  # Of a machine that gives up its work: the spare answers first, then the server ends.
  migrate {
    max_parallel     = 1
    health_check     = "checks"
    min_healthy_time = "1s"
    healthy_deadline = "3m"
  }

  group "engine" {
    # While it runs the agent scales it between 0 and 1; a playbook run keeps what it finds (fleet/deploy.py).
    count = 1

    # The agent sees that the service is gone, and has the slots saved before the server is told to end.
    shutdown_delay = "3s"

    network {
      mode = "host"
      port "http" {
        host_network = "fleet"
      }
    }

    # A machine that is lost for a while finds its server as it was: what a spare did meanwhile ends, nothing else moves.
    disconnect {
      lost_after = "720h"
      replace    = true
      reconcile  = "best_score"
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

    volume "tls" {
      type      = "host"
      source    = "roost-engine-tls"
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
        "memory=first/host:536870912",
        "tls=true",
        "moves=true",
        "keeps_slots=true",
      ]

      check {
        type     = "http"
        protocol = "https"
        # Nomad does not know the fleet's authority; the agent does, and asks by itself.
        tls_skip_verify = true
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
        group_add       = ["105"]
        devices = [
          { host_path = "/dev/dri/renderD128", container_path = "/dev/dri/renderD128", cgroup_permissions = "rw" },
        ]

        # The image's own check knows neither the port nor the key.
        healthchecks {
          disable = true
        }
        args = [
          "--model",
          "/models/b179c9523d0e6a0f/SmolLM2-135M-Instruct.Q4_1.gguf",
          "--alias",
          "smollm2-135m-instruct",
          "--host",
          "${NOMAD_IP_http}",
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
          "--ssl-cert-file",
          "/tls/cert.pem",
          "--ssl-key-file",
          "/tls/key.pem",
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
        volume      = "tls"
        destination = "/tls"
        read_only   = true
      }

      volume_mount {
        volume      = "slots"
        destination = "/slots"
        read_only   = false
      }

      env {
        GGML_VK_VISIBLE_DEVICES = "0"
        MESA_SHADER_CACHE_DIR = "/slots"
        NODEVICE_SELECT = "1"
        VK_DRIVER_FILES = "/usr/share/vulkan/icd.d/radeon_icd.json"
      }

      # The key without which the model server answers nobody; Nomad hands it to this job only.
      template {
        destination = "${NOMAD_SECRETS_DIR}/engine-key"
        data        = "{{ with nomadVar \"nomad/jobs/roost-model-main-2\" }}{{ .engine_key }}{{ end }}"
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
