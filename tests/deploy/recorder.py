"""The proxy through which Prometheus scrapes in these tests: it keeps each page as it was handed on. Judges nothing."""

import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Stands at the end of each page: Prometheus' own samples of it say which page it took when.
PAGE_NUMBER = "test_page_number"
TIMEOUT_S = 10.0


class Recorder:
    """Runs in a thread of its own, so that it outlives a test's loop. `pages[n]` is the text of page number n."""

    def __init__(self) -> None:
        self.pages: list[str] = []
        self._lock = threading.Lock()
        # No proxy behind the proxy, whatever the environment says.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, name="recorder", daemon=True).start()

    def fetch(self, url: str) -> bytes:
        """The page at `url` and its number. Raises OSError when nobody answers."""
        with self._opener.open(url, timeout=TIMEOUT_S) as answer:
            text = answer.read().decode()
        with self._lock:
            self.pages.append(text)
            return f"{text.rstrip()}\n{PAGE_NUMBER} {len(self.pages) - 1}\n".encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(recorder: Recorder) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """A proxy is asked for whole URLs (RFC 9112, 3.2.2)."""
            try:
                body = recorder.fetch(self.path)
            except OSError as exc:
                self.send_error(502, str(exc))
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    return Handler
