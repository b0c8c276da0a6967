"""hiroba: chat rooms over Redis Streams, served by any number of stateless nodes."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("hiroba")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.0.0+checkout"
