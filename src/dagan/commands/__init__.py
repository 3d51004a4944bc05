"""One module per command, imported when it is called: `dagan --help` must not wait for torch."""
