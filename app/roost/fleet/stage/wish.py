"""What is to be staged, and which services that makes: pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from roost.fleet.engine_args import Offload, ServerFiles, server_args
from roost.models.footprint import ServerSettings
from roost.ops.units import FREEBSD, Places, Service

System = Literal["linux", "freebsd"]
SLOT = "main"
FIRST_BOOT = "roost-firstboot"
MODEL_SERVER = f"roost-model-{SLOT}"
AGENT = "roost-agent"
ENGINE_ON_FREEBSD = "/usr/local/bin/llama-server"  # where the package llama-cpp puts it
PYTHON = "/usr/bin/python3"
ENGINE_FOLDER = f"{Places().install_dir}/engine"  # on Linux, where the engine comes along
START_TIMEOUT_S = 120


def state_dir(system: System) -> str:
    """Return where the data of such a host is."""
    return "/var/db/roost" if system == "freebsd" else "/var/lib/roost"


@dataclass(frozen=True)
class Account:
    """A user of ours: its name and its number, the same on every host."""

    name: str
    uid: int
    comment: str


@dataclass(frozen=True)
class Wish:
    """One staged host: which system, which model, on which ports of loopback.

    `engine` is the command of the model server and `engine_folder` where it must run: ggml finds its backends there.
    """

    system: System
    model_name: str
    model_path: str
    engine: tuple[str, ...]
    engine_account: Account
    agent_account: Account
    group: str
    context_size: int
    parallel: int
    cache_ram_mib: int
    loopback: str
    engine_port: int
    api_port: int
    engine_folder: str = "/"
    chat_template: str = ""

    @property
    def places(self) -> Places:
        """Where units and programs are on such a host."""
        return FREEBSD if self.system == "freebsd" else Places()

    @property
    def config_dir(self) -> str:
        """Where its configuration is."""
        return "/usr/local/etc/roost" if self.system == "freebsd" else "/etc/roost"

    @property
    def state_dir(self) -> str:
        """Where its data is."""
        return state_dir(self.system)

    @property
    def engine_key(self) -> str:
        """The model server's copy of the key that its callers need."""
        return f"{self.config_dir}/secrets/engine-key"

    @property
    def agent_env(self) -> str:
        """The agent's variables, which it reads itself."""
        return f"{self.config_dir}/agent.env"


def model_service(wish: Wish) -> Service:
    """Return the model server as a service."""
    settings = ServerSettings(context_size=wish.context_size, parallel=wish.parallel, cache_ram_mib=wish.cache_ram_mib)
    arguments = server_args(
        ServerFiles(wish.model_path), settings, Offload(), alias=wish.model_name, bind=wish.loopback,
        port=str(wish.engine_port), key_file=wish.engine_key, chat_template=wish.chat_template,
    )  # fmt: skip
    return Service(
        name=MODEL_SERVER,
        description=f"Model server of Roost, slot {SLOT}",
        command=(*wish.engine, *arguments),
        user=wish.engine_account.name,
        requires=(wish.model_path, wish.engine_key),
        after=(FIRST_BOOT,),
        folder=wish.engine_folder,
        confined=True,
        stop_timeout_s=20,
    )


def agent_service(wish: Wish) -> Service:
    """Return the agent as a service; its gateway knows the model server by its address."""
    install = wish.places.install_dir
    return Service(
        name=AGENT,
        description="Agent of Roost: the API and the web page",
        command=(PYTHON, "-m", "roost.cli.serve"),
        user=wish.agent_account.name,
        environment={
            "PYTHONPATH": f"{install}/agent/app:{install}/agent/site-packages",
            "PYTHONSAFEPATH": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        },
        environment_file=wish.agent_env,
        requires=(wish.agent_env, f"{wish.config_dir}/secrets/api-keys"),
        after=(FIRST_BOOT, MODEL_SERVER),
        writable=(f"{wish.state_dir}/agent",),
        confined=True,
        stop_timeout_s=30,
    )


def first_boot_service(wish: Wish) -> Service:
    """Return what makes the host's secrets when it starts for the first time: an image must hold none."""
    program = f"{wish.places.install_dir}/host.pyz"
    return Service(
        name=FIRST_BOOT,
        description="Roost's keys for this host, made once",
        type="oneshot",
        command=(PYTHON, program, "firstboot"),
        requires=(program,),
    )


def services(wish: Wish) -> tuple[Service, ...]:
    """Return all services in the order in which they start.

    FreeBSD's are the model server alone: the agent's packages come as binary wheels for Linux only, so such a host
    joins a fleet as an endpoint (`roost endpoints add`), through a tunnel: it answers on loopback only.
    """
    if wish.system == "freebsd":
        return (model_service(wish),)
    return (first_boot_service(wish), model_service(wish), agent_service(wish))
