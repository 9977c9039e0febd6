"""A client session with slixmpp, driven by lines of JSON.

Each line on standard input is a command, {"id": 1, "op": "roster", …}; each
line on standard output is its answer, {"id": 1, …}, or an event, {"event": …}.
The end of standard input ends the program.
"""

import asyncio
import base64
import json
import sys
from xml.etree import ElementTree

import slixmpp
from slixmpp.exceptions import IqError, IqTimeout


def tell(**what):
    print(json.dumps(what), flush=True)


def items(iq):
    """The roster items of a stanza as slixmpp has understood them, in the order of the stanza."""
    return [
        {
            "jid": str(jid),
            "name": item["name"],
            "subscription": item["subscription"],
            "ask": item["ask"],
            "approved": item["approved"] in ("true", "1"),
            "groups": item["groups"],
        }
        for jid, item in iq["roster"]["items"].items()
    ]


class Session:
    def __init__(self):
        self.xmpp = None
        self.empty = set()  # ids of results without a payload

    def arrived(self, stanza):
        """Called before slixmpp has looked at a stanza, which may add to it."""
        if stanza.name == "iq" and stanza["type"] == "result" and not len(stanza.xml):
            self.empty.add(stanza["id"])
        return stanza

    async def login(self, jid, password, port, notify, invisible):
        self.xmpp = xmpp = slixmpp.ClientXMPP(jid, password, sasl_mech="PLAIN")
        xmpp["feature_mechanisms"].unencrypted_plain = True
        xmpp.add_event_handler("roster_update", self.roster_update)
        xmpp.add_filter("in", self.arrived)
        if notify:
            for plugin in ("xep_0030", "xep_0060", "xep_0115", "xep_0163", "xep_0084", "xep_0172"):
                xmpp.register_plugin(plugin)
            xmpp.add_event_handler("pubsub_publish", self.published)
        done = asyncio.get_running_loop().create_future()

        def finish(error):
            if not done.done():
                done.set_result(error)

        xmpp.add_event_handler("session_start", lambda _: finish(None))
        xmpp.add_event_handler("failed_all_auth", lambda _: finish("authentication failed"))
        xmpp.add_event_handler("connection_failed", lambda e: finish(f"connection failed: {e}"))
        xmpp.add_event_handler("disconnected", lambda e: finish(f"disconnected: {e}"))
        xmpp.connect(("127.0.0.1", port), disable_starttls=True, force_starttls=False)
        error = await done
        if error:
            return {"error": error}
        if notify:
            xmpp["xep_0163"].add_interest(notify)
            await xmpp["xep_0115"].update_caps(broadcast=False)
        if not invisible:
            xmpp.send_presence()
        return {}

    async def presence(self, show):
        if show == "unavailable":
            self.xmpp.send_presence(ptype=show)
        else:
            self.xmpp.send_presence(pshow=show or None)
        return {}

    def published(self, message):
        """Called with what slixmpp understood of an event."""
        items = message["pubsub_event"]["items"]
        for item in items["substanzas"]:
            if items["node"] == "http://jabber.org/protocol/nick":
                text = item["nick"]["nick"]
            elif items["node"] == "urn:xmpp:avatar:metadata":
                text = item["avatar_metadata"]["items"][0]["id"]
            else:
                text = ElementTree.tostring(item.xml, encoding="unicode")
            tell(event="pep", **{"from": message["from"].bare, "node": items["node"], "text": text})

    async def ask(self, answer):
        """What a future of slixmpp brings, as text or as the error."""
        try:
            return {"text": (await answer) or ""}
        except IqError as e:
            return {"stanza_error": {"type": e.etype, "condition": e.condition, "text": e.text}}

    async def publish_nick(self, nick):
        async def publish():
            await self.xmpp["xep_0172"].publish_nick(nick)

        return await self.ask(publish())

    async def publish_avatar(self, image):
        async def publish():
            data = base64.b64decode(image)
            id = self.xmpp["xep_0084"].generate_id(data)
            await self.xmpp["xep_0084"].publish_avatar(data)
            await self.xmpp["xep_0084"].publish_avatar_metadata([{"id": id, "type": "image/png", "bytes": len(data)}])
            return id

        return await self.ask(publish())

    async def avatar(self, of, avatar):
        async def fetch():
            answer = await self.xmpp["xep_0084"].retrieve_avatar(of, avatar)
            for item in answer["pubsub"]["items"]["substanzas"]:
                return base64.b64encode(item["avatar_data"]["value"]).decode()

        return await self.ask(fetch())

    def roster_update(self, iq):
        """Called after slixmpp has checked a push's sender; it answers by itself."""
        if iq["type"] == "set":
            tell(event="push", iq=iq["id"], items=items(iq))

    async def roster(self):
        try:
            # The version of none is named: each answer shall be whole (RFC 6121, 2.6.2).
            self.xmpp.client_roster.version = ""
            # The caller has a deadline of its own.
            answer = await self.xmpp.get_roster(timeout=300)
            if answer["id"] in self.empty:
                return {"unchanged": True}
            return {"items": items(answer)}
        except IqError as e:
            return {"stanza_error": {"type": e.etype, "condition": e.condition, "text": e.text}}
        except IqTimeout:
            return {"error": "no answer"}

    async def send(self, xml):
        self.xmpp.send_raw(xml)
        return {}

    async def close(self):
        if self.xmpp and self.xmpp.is_connected():
            await self.xmpp.disconnect(wait=2)
        return {}

    async def run(self, id, op, args):
        try:
            answer = await getattr(self, op)(**args)
        except Exception as e:  # told to the driver, whatever it is
            answer = {"error": f"{type(e).__name__}: {e}"}
        tell(id=id, **answer)


async def main():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    session = Session()
    tasks = set()  # asyncio itself keeps only weak references
    while line := await reader.readline():
        command = json.loads(line)
        task = loop.create_task(session.run(command["id"], command["op"], command.get("args") or {}))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
loop.run_until_complete(main())
