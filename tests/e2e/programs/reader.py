# A web server for the page's test: /read/PATH gives a file of the machine, so that the test sees what the program sees;
# anything else is a greeting.
import http.server


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello\n"
        if self.path.startswith("/read/"):
            with open(self.path[5:], "rb") as file:
                body = file.read()
        elif self.path == "/tasks":
            import os
            body = "\n".join(os.listdir("/proc/self/task")).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
