"""The commands that our pages tell people to type. Whoever runs one asks for its text here, so that what runs is what
stands there; a test looks for a command that nobody asks for."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Of operators and users. What contributors type is in CONTRIBUTING.md, and their own day shows whether it works.
PAGES = (
    "README.md", "SECURITY.md", "deploy/k8s/README.md", "docs/load-testing.md", "docs/moving-from-channels.md",
    "docs/nginx.md", "docs/operations.md", "docs/prefix.md", "docs/tls.md", "docs/troubleshooting.md",
)  # fmt: skip

# What a command begins with, once settings before it (`NAME=value`) are left out; the last line is redis-cli's.
PROGRAMS = {
    ".", ".venv/bin/hiroba", "amtool", "apt-get", "cat", "certbot", "cp", "curl", "df", "dmesg", "docker", "echo",
    "env", "export", "git", "haproxy", "hiroba", "install", "journalctl", "kill", "kubectl", "make", "mv", "nginx",
    "openssl", "prometheus-blackbox-exporter", "promtool", "py-spy", "python", "redis-cli", "sh", "socat", "ss",
    "sysctl", "systemctl", "systemd-analyze", "tar", "ulimit", "umask", "valkey-cli", "valkey-server",
    "ACL", "BGREWRITEAOF", "BGSAVE", "CLIENT", "CONFIG", "LATENCY", "SENTINEL",
}  # fmt: skip
# What names a program, or what it does, and is no command line.
_NAMED = r"[a-z-.]+|make [a-z-]+|hiroba( broker| loadtest)? (--)?[a-z]+"


def commands(page: str) -> Iterator[str]:
    """Blocks of shell and of what is typed into redis-cli, whole; then what stands in a sentence.

    A program alone, or with the name of what it does (`hiroba node`, `make stack`), is named there and not typed.
    """
    text = (ROOT / page).read_text("utf-8")
    fenced = re.compile(r"(?ms)^( *)```(\w*)\n(.*?)^ *```$")
    for indent, language, block in fenced.findall(text):
        if language == "sh" or (not language and block.split()[0] in PROGRAMS):
            yield re.sub(f"(?m)^{indent}", "", block)
    for code in re.findall(r"`([^`]+)`", fenced.sub("", text)):
        words = [word for word in code.split() if not re.match(r"[A-Z_]+=", word)]
        command = " ".join(code.split()).replace("\\|", "|")  # as tables have it
        if words and words[0] in PROGRAMS and not re.fullmatch(_NAMED, command):
            yield command


def typed(page: str, beginning: str, fill: Mapping[str, str] | None = None) -> str:
    """The command of `page` that begins so, with what the reader has to put in (`fill`: its words there -> what).

    Raises LookupError: there is none, or another one; or it lacks a word of `fill`.
    """
    known = set(commands(page))
    found = known & {beginning} or {each for each in known if each.startswith(beginning)}
    if len(found) != 1:
        raise LookupError(f"{page} has {len(found)} commands that begin with {beginning!r}")
    (text,) = found
    for placeholder, value in (fill or {}).items():
        if placeholder not in text:
            raise LookupError(f"{page}: {placeholder!r} is not in {text!r}")
        text = text.replace(placeholder, value)
    return text
