"""``python -m metaloom``: the command ``metaloom``, where its folder is not on the PATH."""

from metaloom.orchestrator.command_line.cli import main

if __name__ == "__main__":
    main()
