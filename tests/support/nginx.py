"""nginx as a process, with a block of a page of docs/ in its configuration."""

from pathlib import Path

from tests.support.need import need_tool
from tests.support.process import Process


def nginx(directory: Path, block: str) -> Process:
    """`block` is what `http {}` holds; it listens on 127.0.0.1."""
    block = block.replace("listen ", "listen 127.0.0.1:")
    temp = "".join(f"{kind}_temp_path {directory};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    conf = directory / "nginx.conf"
    head = f"daemon off; pid {directory}/pid; error_log stderr; events {{ worker_connections 512; }}\n"
    conf.write_text(f"{head}http {{ access_log off;\n{temp}{block}}}\n")
    argv = [need_tool("nginx", "nginx"), "-p", str(directory), "-e", "stderr", "-c", str(conf)]
    return Process("nginx", argv, directory / "nginx.log")
