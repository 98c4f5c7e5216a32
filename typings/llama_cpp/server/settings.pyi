class ModelSettings:
    def __init__(
        self,
        *,
        model: str,
        model_alias: str,
        n_ctx: int,
        n_threads: int,
        n_threads_batch: int,
        flash_attn: bool,
        verbose: bool,
    ) -> None: ...

class ServerSettings:
    def __init__(
        self, *, host: str, port: int, api_key: str, interrupt_requests: bool, disable_ping_events: bool
    ) -> None: ...
