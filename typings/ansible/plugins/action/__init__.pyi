from typing import Any

class _Task:
    args: dict[str, Any]
    check_mode: bool | None
    environment: Any

class _PlayContext:
    check_mode: bool

class _Connection:
    transport: str
    def put_file(self, in_path: str, out_path: str) -> None: ...

class ActionBase:
    _task: _Task
    _play_context: _PlayContext
    _connection: _Connection
    def run(self, tmp: str | None = ..., task_vars: dict[str, Any] | None = ...) -> dict[str, Any]: ...
    def _execute_module(
        self,
        module_name: str | None = ...,
        module_args: dict[str, Any] | None = ...,
        tmp: str | None = ...,
        task_vars: dict[str, Any] | None = ...,
    ) -> dict[str, Any]: ...
    def _compute_environment_string(self) -> str: ...
    def _low_level_execute_command(
        self, cmd: str, sudoable: bool = ..., in_data: bytes | None = ..., chdir: str | None = ...
    ) -> dict[str, Any]: ...
    def _make_tmp_path(self, remote_user: str | None = ...) -> str: ...
    def _remove_tmp_path(self, tmp_path: str | None, force: bool = ...) -> None: ...
