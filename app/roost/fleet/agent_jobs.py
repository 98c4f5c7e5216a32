"""The jobs of the agent and of further gateways: pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from roost.fleet.agent_variables import AGENT_JOB, ENDPOINTS_ITEM, ENDPOINTS_VARIABLE
from roost.fleet.jobs import MODEL_SERVICE_PREFIX, Driver, Identity, Job
from roost.ops import listen_keeper

GATEWAY_JOB = "roost-gateway"  # further gateways, on other nodes; all of them, the agent too, register this service
PEER_NAME = "gateway.roost.internal"  # what the certificates of gateways are made out to, whatever their address
# The keys of the API. A job may read the variables nomad/jobs/JOB and nomad/jobs/JOB/GROUP without any policy
# (https://developer.hashicorp.com/nomad/docs/concepts/workload-identity): the first is the playbook's, this one that of
# `roost keys`.
KEYS_VARIABLE = f"nomad/jobs/{AGENT_JOB}/agent"
KEYS_ITEM = "keys"
ROUTE_VARIABLE = f"{KEYS_VARIABLE}/agent"  # of the task: a variable has room for one large thing
ROUTE_ITEM = "router"
STATE_MOUNT = "/state"
TLS_MOUNT = "/tls"
TLS_FILES = ("tls_cert", "tls_key")


@dataclass(frozen=True)
class SecretFile:
    """A file in the task's secrets folder: an item of a Nomad variable. `reread`: a new content needs no restart."""

    name: str
    variable: str
    item: str
    reread: bool = False


@dataclass(frozen=True)
class AgentJob(Job):
    """Everything the agent's template shows."""

    secret_files: list[SecretFile]
    nodes: list[str]
    other_than: str  # a machine where it never runs; empty: none
    state_mount: str
    tls_volume: str  # where the node's own certificate is mounted; empty: it is among the secrets
    port: int
    listen_port: int  # of its address with TLS, where several gateways are one service; else 0
    peer_service: str
    count: int
    cpu_mhz: int
    memory_mib: int


@dataclass(frozen=True)
class AgentChoice:
    """The agent that is wanted. `listen` is ADDR:PORT for TLS on the LAN, or empty."""

    driver: Driver
    bind: str
    port: int
    memory_mib: int
    log_level: str
    cost_mode: str = ""  # of conversations that chose none; empty: the built-in default
    image: str = ""
    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    listen: str = ""
    state_dir: str = ""  # on the host
    replicas: int = 0  # further gateways on other nodes
    node: str = ""  # the machine of a fleet where its state lies; empty: any
    engine_ca: bool = False  # model servers answer with certificates of the fleet's authority
    tls_dir: str = ""  # where every node has a certificate of its own for a gateway; empty: all share one


def gateway_job(choice: AgentChoice, who: Identity, *, datacenter: str) -> AgentJob:
    """Decide the job of the further gateways: like the agent's, without the page.

    A fixed port has room for one of them a node, so each stands on a node of its own, never the agent's, which has no
    other, and answers with the certificate of that node, whose key never leaves it.
    """
    further = replace(choice, args=(*choice.args, "gateway"), node="")
    job = agent_job(further, who, datacenter=datacenter, name=GATEWAY_JOB)
    if choice.tls_dir:
        folder = TLS_MOUNT if choice.driver == "docker" else choice.tls_dir
        pair = {"ROOST_TLS_CERT": f"{folder}/cert.pem", "ROOST_TLS_KEY": f"{folder}/key.pem"}
        files = [file for file in job.secret_files if file.name not in TLS_FILES]
        job = replace(job, env=dict(sorted({**job.env, **pair}.items())), secret_files=files, tls_volume=folder)
    return replace(job, count=choice.replicas, other_than=choice.node)


def agent_job(choice: AgentChoice, who: Identity, *, datacenter: str, name: str = AGENT_JOB) -> AgentJob:
    """Decide the agent's job: it finds model servers through the Task API, with its own identity only."""
    own = f"nomad/jobs/{name}"
    state = STATE_MOUNT if choice.driver == "docker" else choice.state_dir
    secret_files = [
        SecretFile("engine_key", own, "engine_key"),
        SecretFile("api_key_sha256", own, "api_key_sha256", reread=True),
        SecretFile("keys.json", KEYS_VARIABLE, KEYS_ITEM, reread=True),
        SecretFile("router.json", ROUTE_VARIABLE, ROUTE_ITEM, reread=True),
        SecretFile("endpoints.json", ENDPOINTS_VARIABLE, ENDPOINTS_ITEM, reread=True),
    ]
    env = {
        **choice.env,
        "ROOST_BIND": choice.bind,
        "ROOST_PORT": str(choice.port),
        "ROOST_API_KEYS_FILE": "${NOMAD_SECRETS_DIR}/api_key_sha256",
        "ROOST_KEYS_FILE": "${NOMAD_SECRETS_DIR}/keys.json",
        "ROOST_ROUTE_FILE": "${NOMAD_SECRETS_DIR}/router.json",
        "ROOST_ENDPOINTS_FILE": "${NOMAD_SECRETS_DIR}/endpoints.json",
        "ROOST_ENDPOINTS_VARIABLE": ENDPOINTS_VARIABLE,
        "ROOST_STATE_DIR": state,
        "ROOST_LISTEN_KEEPER": f"{state}/{listen_keeper.FOLDER}/{listen_keeper.NAME}" if state else "",
        "ROOST_ENGINE_KEY_FILE": "${NOMAD_SECRETS_DIR}/engine_key",
        "ROOST_NOMAD_SOCKET": "${NOMAD_SECRETS_DIR}/api.sock",
        "ROOST_MODEL_SERVICE_PREFIX": MODEL_SERVICE_PREFIX,
        "ROOST_LOG_LEVEL": choice.log_level,
        **({"ROOST_COST_MODE": choice.cost_mode} if choice.cost_mode else {}),
    }
    if choice.listen:
        secret_files += [SecretFile(name, own, name, reread=True) for name in TLS_FILES]
        env |= {
            "ROOST_LISTEN": choice.listen,
            "ROOST_TLS_CERT": "${NOMAD_SECRETS_DIR}/tls_cert",
            "ROOST_TLS_KEY": "${NOMAD_SECRETS_DIR}/tls_key",
        }
    if choice.replicas:
        secret_files += [SecretFile("peer_key", own, "peer_key", reread=True), SecretFile("peer_ca", own, "peer_ca")]
        env |= {
            "ROOST_LISTEN": "${NOMAD_IP_tls}:${NOMAD_PORT_tls}",
            "ROOST_PEER_SERVICE": GATEWAY_JOB,
            "ROOST_PEER_KEY_FILE": "${NOMAD_SECRETS_DIR}/peer_key",
            "ROOST_PEER_CA": "${NOMAD_SECRETS_DIR}/peer_ca",
            "ROOST_PEER_NAME": PEER_NAME,
        }
    if choice.engine_ca:
        secret_files.append(SecretFile("engine_ca", own, "engine_ca"))
        env["ROOST_ENGINE_CA_FILE"] = "${NOMAD_SECRETS_DIR}/engine_ca"
    command, args = who.command(choice.driver, choice.command, choice.args)
    return AgentJob(
        name=name,
        datacenter=datacenter,
        driver=choice.driver,
        user=who.user(choice.driver),
        uid=who.uid,
        gid=who.gid,
        image=choice.image,
        command=command,
        args=args,
        env=dict(sorted(env.items())),
        secret_files=secret_files,
        nodes=[choice.node] if choice.node else [],
        other_than="",
        state_mount=STATE_MOUNT,
        tls_volume="",
        port=choice.port,
        listen_port=int(choice.listen.rpartition(":")[2]) if choice.replicas else 0,
        peer_service=GATEWAY_JOB if choice.replicas else "",
        count=1,
        cpu_mhz=200,
        memory_mib=choice.memory_mib,
    )
