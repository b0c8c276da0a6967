"""The whole stack on one machine, without containers: `make stack`. Not part of the distribution."""
