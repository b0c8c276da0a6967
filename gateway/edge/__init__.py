"""The outside: HTTP, WebSockets, pages. The only package that knows aiohttp."""
