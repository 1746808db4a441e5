import http.server
import socketserver
from http import HTTPStatus
from pathlib import Path
import os

class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.send_response(HTTPStatus.OK)
        self.end_headers()
        self.wfile.write(b'Hello world from nanos!\n')

        cwd = "Current directoty: {}\n".format(Path.cwd())
        self.wfile.write(cwd.encode())

        ls = os.listdir()
        self.wfile.write(str(ls).encode())


httpd = socketserver.TCPServer(('', 8000), Handler)
httpd.serve_forever()
