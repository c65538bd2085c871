"""The command line of the engine process."""

from mageflow.engine.settings import parse_settings


def test_flags_have_one_dash_or_two_and_unknown_ones_are_ignored() -> None:
    """The SDK passes Go flags, and newer SDKs may pass flags that this engine does not know."""
    settings = parse_settings(["-grpc-port", "5", "--api-port=6", "-database-url", "x", "-no-api", "-brand-new", "y"])
    assert (settings.grpc_port, settings.api_port, settings.handshake_file) == (5, 6, None)
    assert settings.exit_with_stdin is True
