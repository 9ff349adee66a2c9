"""What a process that measures may do: well, end afterwards, die, or hang. Imports nothing that takes time to load."""

import os
import time
from typing import Any


def work(names: list[str], device: str, quick: bool, ceilings: dict[str, Any], tell: Any) -> None:
    for name in names:
        tell.send((name, None))
        if name == "dies":
            os._exit(3)
        if name == "hangs":
            time.sleep(60)
        ceilings = {**ceilings, name: device}
        tell.send((name, {"errors": [], "for others": ceilings}))
        if name == "breaks":
            return
