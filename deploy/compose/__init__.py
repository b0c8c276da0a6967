"""What docker-compose.yml needs besides the files of every other way, and `make compose-test`."""
