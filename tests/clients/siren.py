"""A siren: does what its retained command says, and answers.

Arguments: host, port, tenant, farm, barn, device, and then user and password, where it needs them.
Writes one JSON object a line: {"event": "connected" | "subscribed" | "command" | "closed", ...}.
Reads one word a line: "mute" (it does not answer any more), "speak", "press" (its button), "leave".
"""

import json
import sys
import threading
import uuid
from datetime import datetime, timezone

import paho.mqtt.client as mqtt

HOST, PORT, TENANT, FARM, BARN, DEVICE = sys.argv[1:7]
COMMAND = f"iot/command/{TENANT}/{FARM}/{BARN}/{DEVICE}/siren"
OUTPUT = threading.Lock()
STATE = {"is_mute": False}


def say(event, **more):
    with OUTPUT:
        sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
        sys.stdout.flush()


def tell(event_type, payload):
    body = {
        "schema_version": "1.0",
        "event_id": str(uuid.uuid4()),
        "event_type": event_type,
        "tenant_id": TENANT,
        "farm_id": FARM,
        "barn_id": BARN,
        "device_id": DEVICE,
        "ts": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "trace_id": str(uuid.uuid4()),
        "payload": payload,
    }
    client.publish(f"iot/event/{TENANT}/{FARM}/{BARN}/{DEVICE}/{event_type}", json.dumps(body), qos=1)


def connected(_client, _data, _flags, reason, _properties):
    say("connected", reason=str(reason))
    client.subscribe(COMMAND, qos=1)


def subscribed(_client, _data, _mid, reasons, _properties):
    say("subscribed", reasons=[str(reason) for reason in reasons])


def heard(_client, _data, message):
    command = json.loads(message.payload)
    say("command", retained=message.retain, **command)
    if not STATE["is_mute"]:
        tell("siren.answered", {"command_id": command["command_id"], "sounds": command["sounds"]})


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=DEVICE)
if len(sys.argv) > 7:
    client.username_pw_set(sys.argv[7], sys.argv[8])
client.on_connect, client.on_subscribe, client.on_message = connected, subscribed, heard
client.on_disconnect = lambda *_: say("closed")
client.reconnect_delay_set(min_delay=1, max_delay=1)
client.connect(HOST, int(PORT), keepalive=10)
client.loop_start()
for line in sys.stdin:
    word = line.strip()
    if word == "press":
        tell("siren.acknowledged", {})
    elif word == "leave":
        break
    else:
        STATE["is_mute"] = word == "mute"
client.disconnect()
client.loop_stop()
