"""What is to be staged, and which services that makes: pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from roost.fleet.engine_args import Offload, ServerFiles, server_args
from roost.models.footprint import ServerSettings
from roost.ops.units import FREEBSD, Places, Service, in_its_environment

System = Literal["linux", "freebsd"]
SLOT = "main"
FIRST_BOOT = "roost-firstboot"
MODEL_SERVER = f"roost-model-{SLOT}"
AGENT = "roost-agent"
ENGINE_ON_FREEBSD = "/usr/local/bin/llama-server"  # where the package llama-cpp puts it
WORKER = "roost-worker"
PYTHON = "/usr/bin/python3"
PYTHON_ON_FREEBSD = "/usr/local/bin/python3"
FETCH_ON_FREEBSD = ("/usr/bin/fetch", "-q", "-T", "5", "-o", "/dev/null")  # fetch(1): exits 1 unless it is answered 200
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
class WorkerWish:
    """The worker of a FreeBSD host: its user, and the address of the fleet's API."""

    account: Account
    api: str


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
    worker: WorkerWish | None = None

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

    @property
    def worker_env(self) -> str:
        """The worker's variables with its key, which it reads itself; the operator puts it there."""
        return f"{self.config_dir}/worker.env"

    @property
    def worker_tree(self) -> str:
        """Where the worker's own code is; its Python packages are the system's."""
        return f"{self.places.install_dir}/worker"

    @property
    def worker_home(self) -> str:
        """Where the worker keeps what it was given and did."""
        return f"{self.state_dir}/worker"

    @property
    def accounts(self) -> tuple[Account, ...]:
        """The users of such a host."""
        if self.system == "linux":
            return (self.engine_account, self.agent_account)
        return (self.engine_account, *((self.worker.account,) if self.worker else ()))


def model_service(wish: Wish) -> Service:
    """Return the model server as a service."""
    settings = ServerSettings(context_size=wish.context_size, parallel=wish.parallel, cache_ram_mib=wish.cache_ram_mib)
    arguments = server_args(
        ServerFiles(wish.model_path), settings, Offload(), alias=wish.model_name, bind=wish.loopback,
        port=str(wish.engine_port), key_file=wish.engine_key, chat_template=wish.chat_template,
    )  # fmt: skip
    health = f"http://{wish.loopback}:{wish.engine_port}/health"
    return Service(
        name=MODEL_SERVER,
        description=f"Model server of Roost, slot {SLOT}",
        command=(*wish.engine, *arguments),
        user=wish.engine_account.name,
        requires=(wish.model_path, wish.engine_key),
        # Whoever asks may have proxies in the environment: loopback is asked without.
        check_command=in_its_environment({}, (*FETCH_ON_FREEBSD, health)) if wish.system == "freebsd" else (),
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


def worker_variables(wish: Wish) -> dict[str, str]:
    """Return what the worker's programs are started with; no secret is among it."""
    return {
        "HOME": wish.worker_home,
        "PYTHONPATH": f"{wish.worker_tree}/app",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "ROOST_ENV_FILE": wish.worker_env,
    }


def worker_command(*verb: str) -> tuple[str, ...]:
    """Return the words that run a verb of the worker as a service."""
    return (PYTHON_ON_FREEBSD, "-P", "-m", "roost.cli.worker_service", *verb)


def as_worker(wish: Wish, worker: WorkerWish, *words: str) -> tuple[str, ...]:
    """Return the words with which root runs others as the worker's user: chroot(8), as su(1) needs a shell."""
    user, group = worker.account.name, wish.group
    as_user = (wish.places.chroot, "-u", user, "-g", group, "-G", group, "/")
    return (*as_user, *in_its_environment(worker_variables(wish), words))


def worker_service(wish: Wish, worker: WorkerWish) -> Service:
    """Return the worker as a service of FreeBSD's."""
    variables = {name: value for name, value in worker_variables(wish).items() if name != "ROOST_ENV_FILE"}
    return Service(
        name=WORKER,
        description="Runs the tools of Roost's agent in folders that were named",
        command=worker_command("run"),
        ready_command=as_worker(wish, worker, *worker_command("check")),
        check_command=as_worker(wish, worker, *worker_command("health")),
        user=worker.account.name,
        environment=variables,
        environment_file=wish.worker_env,
        requires=(wish.worker_env, f"{wish.worker_tree}/app/roost/cli/worker_service.py"),
        after=(FIRST_BOOT,),
        folder=wish.worker_home,
        stop_timeout_s=20,
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

    FreeBSD's are the model server and, where it is wished, the worker: the agent's packages come as binary wheels for
    Linux only, so such a host joins a fleet as an endpoint (`roost endpoints add`), through a tunnel, as it answers on
    loopback only. What the worker needs is among FreeBSD's own packages.
    """
    if wish.system == "freebsd":
        return (model_service(wish), *((worker_service(wish, wish.worker),) if wish.worker else ()))
    return (first_boot_service(wish), model_service(wish), agent_service(wish))
