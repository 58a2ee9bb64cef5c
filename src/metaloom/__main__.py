"""``python -m metaloom``: the command ``metaloom``, for use without the PATH."""

from metaloom.orchestrator.command_line.cli import main

if __name__ == "__main__":
    main()
