"""A server of files on 127.0.0.1 that misbehaves as told."""

import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Faults:
    """What goes wrong, one entry of each list for each request; afterwards all is well."""

    cuts: list = field(default_factory=list)  # after so many bytes the connection ends; or None
    stalls: list = field(default_factory=list)  # after so many bytes nothing more comes
    statuses: list = field(default_factory=list)  # answers without a file
    ignore_range: bool = False  # always send the whole file
    chunked: bool = False  # send without a Content-Length


class Server:
    """Serves `files` (path -> bytes); `redirects` (path -> path) come first."""

    def __init__(self):
        self.files, self.redirects, self.faults = {}, {}, Faults()
        self.requests, self.sent = [], 0  # path and Range header of each; bytes of contents
        self.gone = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.gone.set()
        self._http.shutdown()
        self._http.server_close()

    def answer(self, handler):
        faults, path = self.faults, handler.path
        self.requests.append((path, handler.headers.get("Range")))
        handler.close_connection = True
        if path in self.redirects:
            return self._head(handler, 302, {"Location": self.redirects[path]})
        if faults.statuses and (status := faults.statuses.pop(0)):
            return self._head(handler, status, {})
        if path not in self.files:
            return self._head(handler, 404, {})
        return self._send(handler, self.files[path])

    def _send(self, handler, data):
        faults = self.faults
        headers = {}
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = 0
        if wanted and not faults.ignore_range:
            start = int(wanted[1])
            if start >= len(data):
                return self._head(handler, 416, {"Content-Range": f"bytes */{len(data)}"})
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        if faults.chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(len(body))
        # First, since a client that has seen the head may go on to its next request.
        cut = faults.cuts.pop(0) if faults.cuts else None
        stall = faults.stalls.pop(0) if faults.stalls else None
        self._head(handler, 206 if start else 200, headers)
        for part in (cut, stall):
            body = body if part is None else body[:part]
        self.sent += len(body)
        if faults.chunked:
            body = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
            body += b"0\r\n\r\n" if cut is None else b""
        handler.wfile.write(body)
        handler.wfile.flush()
        if stall is not None:
            self.gone.wait(30)

    @staticmethod
    def _head(handler, status, headers):
        handler.send_response(status)
        headers = {"Connection": "close"} | headers
        if not {"Content-Length", "Transfer-Encoding"} & set(headers):
            headers |= {"Content-Length": "0"}
        for name, text in headers.items():
            handler.send_header(name, text)
        handler.end_headers()
