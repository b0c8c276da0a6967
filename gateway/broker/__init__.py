"""The rooms' logs in Redis: publishing, reading, groups, liveness. The only package that knows a Redis command."""
