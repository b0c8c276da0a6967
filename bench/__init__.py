"""`python -m bench`: what a delivery costs on this machine, measured against a server in C that does nothing else."""
