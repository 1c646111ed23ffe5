"""A generic QMP server: schema, dispatch, sans-IO connection, transports."""

if __name__ != "blockemu.qmp_server":
    raise ImportError(f"import blockemu.qmp_server, not {__name__}")
