from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

class AnsibleModule:
    params: dict[str, Any]
    check_mode: bool
    tmpdir: str
    def __init__(
        self,
        argument_spec: Mapping[str, Mapping[str, object]],
        *,
        supports_check_mode: bool = False,
        required_if: Sequence[Sequence[object]] = (),
        required_one_of: Sequence[Sequence[str]] = (),
        required_together: Sequence[Sequence[str]] = (),
        mutually_exclusive: Sequence[Sequence[str]] = (),
    ) -> None: ...
    def exit_json(self, **kwargs: object) -> NoReturn: ...
    def fail_json(self, msg: str, **kwargs: object) -> NoReturn: ...
    def warn(self, warning: str) -> None: ...
