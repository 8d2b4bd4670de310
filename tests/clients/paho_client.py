"""Clients of paho-mqtt that do what they are told.

Reads one JSON object a line: {"client": NAME, "do": "connect" | "subscribe" | "publish" | "disconnect" | "vanish", ...}.
Writes one JSON object a line for whatever happens: {"client": NAME, "event": "connected" | "refused" | "subscribed" |
"published" | "message" | "closed", ...}. The same language as mqttjs_client.js.
"""

import json
import socket
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

OUTPUT = threading.Lock()


def say(name, event, **more):
    with OUTPUT:
        sys.stdout.write(json.dumps({"client": name, "event": event, **more}) + "\n")
        sys.stdout.flush()


class Client:
    def __init__(self, name, order):
        self.name = name
        self.is_v5 = order["version"] == 5
        transport = "websockets" if order["websocket"] else "tcp"
        arguments = {"client_id": order["client_id"], "transport": transport}
        if self.is_v5:
            arguments["protocol"] = mqtt.MQTTv5
        else:
            arguments["protocol"] = mqtt.MQTTv311
            arguments["clean_session"] = not order["lasts"]
        self.client = client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, **arguments)
        if order["websocket"]:
            client.ws_set_options(path="/mqtt")
        if order.get("ca"):
            client.tls_set(order["ca"], order.get("cert"), order.get("key"))
        if order.get("user"):
            client.username_pw_set(order["user"], order["password"])
        if order.get("will"):
            will = order["will"]
            client.will_set(will["topic"], will["payload"], will["qos"], will["retain"])
        client.on_connect = self.connected
        client.on_subscribe = lambda c, u, mid, codes, p: say(name, "subscribed", codes=[code.value for code in codes])
        client.on_publish = lambda c, u, mid, code, p: say(name, "published")
        client.on_message = self.message
        more = {}
        if self.is_v5:
            properties = Properties(PacketTypes.CONNECT)
            if order["lasts"]:
                properties.SessionExpiryInterval = 3600
            more = {"clean_start": not order["lasts"], "properties": properties}
        client.connect(order["host"], order["port"], keepalive=60, **more)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        # Without the library's own loop, which connects again.
        while self.client.loop(timeout=1.0) == mqtt.MQTT_ERR_SUCCESS:
            pass
        say(self.name, "closed")

    def connected(self, client, userdata, flags, code, properties):
        if code.is_failure:
            say(self.name, "refused", code=code.value)
        else:
            say(self.name, "connected", session_present=flags.session_present)

    def message(self, client, userdata, message):
        say(self.name, "message", topic=message.topic, payload=message.payload.decode(), qos=message.qos,
            retain=bool(message.retain))

    def obey(self, order):
        match order["do"]:
            case "subscribe":
                self.client.subscribe(order["topic"], order["qos"])
            case "publish":
                self.client.publish(order["topic"], order["payload"], order["qos"], order["retain"])
            case "disconnect":
                self.client.disconnect()
            case "vanish":
                stream = self.client.socket()
                # A WebSocket wraps its socket.
                getattr(stream, "_socket", stream).shutdown(socket.SHUT_RDWR)
            case other:
                raise ValueError(f"no such order: {other}")


def main():
    clients = {}
    for line in sys.stdin:
        order = json.loads(line)
        name = order["client"]
        if order["do"] == "connect":
            clients[name] = Client(name, order)
        else:
            clients[name].obey(order)


main()
