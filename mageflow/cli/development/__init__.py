"""The development environment: an engine and a Valkey server, and the file that leads programs there."""

from mageflow.cli.development.environment import DEFAULT_NAME, Environment, name_option
from mageflow.cli.development.services import DevelopmentPorts, start_services

__all__ = ["DEFAULT_NAME", "DevelopmentPorts", "Environment", "name_option", "start_services"]
