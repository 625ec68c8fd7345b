"""One module a verb of the command line: `main(argv) -> exit status`, importing what it needs late."""

__all__: list[str] = []
