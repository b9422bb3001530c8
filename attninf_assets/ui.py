"""The program behind `make ui`: `dg dev`, which warns of a dagster.yaml that is not used only where that is so."""

import logging
import os
import sys
from pathlib import Path


def warns_rightly(record: logging.LogRecord) -> bool:
    """False for the warning that this folder's dagster.yaml is not used, where DAGSTER_HOME links to that very file.

    Dagster compares the folders and not the files.
    """
    home = os.environ.get("DAGSTER_HOME")
    if home is None or "dagster.yaml file will not be used" not in record.getMessage():
        return True
    used = Path(home) / "dagster.yaml"
    return not (used.exists() and used.samefile("dagster.yaml"))


def main() -> None:
    """Serve until interrupted; arguments are those of `dg dev`."""
    from dagster_dg_cli.cli import main as dg  # a tool, which only this program needs

    logging.getLogger("dagster").addFilter(warns_rightly)
    sys.argv[1:1] = ["dev"]
    dg()


if __name__ == "__main__":
    main()
