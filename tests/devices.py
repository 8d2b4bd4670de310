"""Devices that publish readings with paho-mqtt and say which were offered and which were acknowledged.

Usage: devices.py HOST PORT TOPIC CLIENTS READINGS PER_SECOND, where TOPIC contains {device}. Each line of the output is
"offered ID" or "acked ID". Ends when every reading was acknowledged.
"""

import json
import sys
import threading
import time
import uuid
from datetime import datetime, timezone

import paho.mqtt.client as mqtt

OUTPUT = threading.Lock()


def say(word, event_id):
    with OUTPUT:
        sys.stdout.write(f"{word} {event_id}\n")
        sys.stdout.flush()


def reading(tenant, device):
    event_id = str(uuid.uuid4())
    now = datetime.now(timezone.utc).isoformat(timespec="microseconds")
    body = {
        "schema_version": "1.0", "event_id": event_id, "trace_id": None, "tenant_id": tenant, "device_id": device,
        "event_type": "telemetry.reading", "ts": now, "payload": {"value": 26.4, "unit": "celsius"},
        "content_hash": None, "produced_at": None, "retry_count": 0,
    }
    return event_id, json.dumps(body)


class Device:
    def __init__(self, host, port, topic, number):
        self.name = f"d-{number}"
        self.topic = topic.format(device=self.name)
        self.tenant = self.topic.split("/")[2]
        self.lock = threading.Lock()
        self.waiting = {}
        self.early = set()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=self.name, protocol=mqtt.MQTTv311)
        self.client.on_publish = self.acknowledged
        self.client.max_inflight_messages_set(100)
        self.client.max_queued_messages_set(0)
        self.client.reconnect_delay_set(1, 2)
        self.client.connect(host, port, keepalive=60)
        self.client.loop_start()

    def publish(self):
        event_id, body = reading(self.tenant, self.name)
        say("offered", event_id)
        # The library calls back under a lock that publishing takes too, so this one must not be held here.
        mid = self.client.publish(self.topic, body, qos=1).mid
        with self.lock:
            # The acknowledgement may have overtaken the message id.
            if mid not in self.early:
                self.waiting[mid] = event_id
                return
            self.early.remove(mid)
        say("acked", event_id)

    def acknowledged(self, _client, _userdata, mid, _reason, _properties):
        with self.lock:
            event_id = self.waiting.pop(mid, None)
            if event_id is None:
                self.early.add(mid)
                return
        say("acked", event_id)

    def run(self, readings, per_second):
        started = time.monotonic()
        for number in range(readings):
            time.sleep(max(0.0, started + number / per_second - time.monotonic()))
            self.publish()
        while True:
            with self.lock:
                if not self.waiting:
                    break
            time.sleep(0.05)
        self.client.disconnect()
        self.client.loop_stop()


def main():
    host, port, topic, clients, readings, per_second = sys.argv[1:]
    devices = [Device(host, int(port), topic, number) for number in range(int(clients))]
    threads = [threading.Thread(target=device.run, args=(int(readings), float(per_second))) for device in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


main()
