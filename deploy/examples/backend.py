"""A small contacts backend for rosterd: python3 backend.py
contacts.url is http://127.0.0.1:8000/contacts/%s, contacts.bulk_url http://127.0.0.1:8000/bulk, contacts.edit_url
http://127.0.0.1:8000/edit. This changes juliet's contacts, and rosterd is told:
curl -X PUT -d '{"romeo@example.org": {"name": "Romeo, my love"}}' http://127.0.0.1:8000/contacts/juliet
"""
import hashlib, json, os, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

LISTEN = os.environ.get("LISTEN", "127.0.0.1:8000")
REFRESH = os.environ.get("REFRESH", "http://127.0.0.1:5290/roster_admin/refresh")
TOKEN = os.environ.get("TOKEN", "")  # refresh.token
DOMAIN = os.environ.get("DOMAIN", "example.org")
TABLE = {  # user: contacts
    "juliet": {"romeo@" + DOMAIN: {"name": "Romeo", "groups": ["Friends"]}},
    "romeo": {"juliet@" + DOMAIN: {"name": "Juliet", "subscription": "both"}},
}

class Backend(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are used again

    def answer(self, status, value=None, tag=""):
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        if tag:
            self.send_header("ETag", tag)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def received(self):
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def do_GET(self):
        user = unquote(self.path.removeprefix("/contacts/"))
        if user not in TABLE:
            return self.answer(404)  # not {}: that is a user without contacts
        tag = '"%s"' % hashlib.sha256(json.dumps(TABLE[user]).encode()).hexdigest()
        if self.headers["If-None-Match"] == tag:
            return self.answer(304, tag=tag)  # rosterd has them
        self.answer(200, TABLE[user], tag)

    def do_POST(self):
        if self.path == "/edit":
            return self.edit(self.received())
        # the contacts of those users who are known
        self.answer(200, {user: TABLE[user] for user in self.received() if user in TABLE})

    def edit(self, edit):  # what a user changes in a client; rosterd asks for the contacts then
        user, contact = edit["user"], edit["jid"]
        if user not in TABLE:
            return self.answer(422, {"message": "There is no user of that name."})
        contacts = dict(TABLE[user])  # who reads meanwhile has the old ones
        if edit["action"] == "remove":
            contacts.pop(contact, None)
        else:
            contacts[contact] = {**contacts.get(contact, {}), "name": edit["name"], "groups": edit["groups"]}
        TABLE[user] = contacts
        self.answer(204)

    def do_PUT(self):  # first the change, then the report: rosterd asks at once
        user = unquote(self.path.removeprefix("/contacts/"))
        TABLE[user] = self.received()
        report = urllib.request.Request(REFRESH, json.dumps([user]).encode(), {"Content-Type": "application/json"})
        if TOKEN:
            report.add_header("Authorization", "Bearer " + TOKEN)
        with urllib.request.urlopen(report) as reply:  # if this fails, report it again later
            self.answer(200, json.load(reply))

host, port = LISTEN.rsplit(":", 1)
ThreadingHTTPServer((host, int(port)), Backend).serve_forever()
