"""paho-mqtt against Avow: one device publishes, one dashboard subscribes, at every QoS.

Usage: paho_client.py VERSION HOST PORT DEVICE_DIR DASHBOARD_DIR TOPIC COUNT
           [WSS_PORT ORIGIN TOKEN]

VERSION is 4 (3.1.1) or 5. With a TOKEN the dashboard shows no certificate: it comes over WebSocket,
as a page of ORIGIN would, with the token for its password. Prints one JSON object: how many messages
arrived at each QoS, in order and unchanged. Ends with an error on whatever else happens.
"""

import json
import os
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

WITHIN_SECONDS = 20


def fail(why):
    print(why, file=sys.stderr, flush=True)
    os._exit(1)


class Client:
    """A connected client: its loop runs in a thread of its own."""

    def __init__(self, version, host, port, directory, origin=None, token=None):
        with open(os.path.join(directory, "connect.json"), encoding="utf-8") as file:
            client_id = json.load(file)["client_id"]
        protocol = MQTTProtocolVersion.MQTTv5 if version == 5 else MQTTProtocolVersion.MQTTv311
        self.connected = threading.Event()
        self.subscribed = threading.Event()
        self.arrived = threading.Condition()
        self.messages = []
        transport = "websockets" if token else "tcp"
        self.mqtt = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=protocol, transport=transport
        )
        path = lambda name: os.path.join(directory, name)
        if token:
            self.mqtt.tls_set(path("ca.pem"))
            self.mqtt.ws_set_options("/mqtt", {"Origin": origin})
            self.mqtt.username_pw_set("dashboard", token)
        else:
            self.mqtt.tls_set(path("ca.pem"), path("cert.pem"), path("key.pem"))
        self.mqtt.on_connect = self.on_connect
        self.mqtt.on_subscribe = self.on_subscribe
        self.mqtt.on_message = self.on_message
        self.mqtt.connect(host, port, keepalive=30)
        self.mqtt.loop_start()
        if not self.connected.wait(WITHIN_SECONDS):
            fail("no CONNACK")

    def on_connect(self, _client, _userdata, _flags, reason, _properties):
        if reason.is_failure:
            fail(f"CONNACK says {reason}")
        self.connected.set()

    def on_subscribe(self, _client, _userdata, _mid, reasons, _properties):
        if any(reason.is_failure or reason.value != 2 for reason in reasons):
            fail(f"SUBACK says {reasons}")
        self.subscribed.set()

    def on_message(self, _client, _userdata, message):
        with self.arrived:
            self.messages.append((message.topic, message.payload, message.qos))
            self.arrived.notify_all()

    def subscribe(self, topic):
        self.mqtt.subscribe(topic, qos=2)
        if not self.subscribed.wait(WITHIN_SECONDS):
            fail("no SUBACK")

    def receive(self, count):
        with self.arrived:
            if not self.arrived.wait_for(lambda: len(self.messages) >= count, WITHIN_SECONDS):
                fail(f"{len(self.messages)} of {count} messages: {self.messages}")
            received, self.messages = self.messages, []
            return received

    def close(self):
        self.mqtt.disconnect()
        self.mqtt.loop_stop()


def main():
    version, host, port, device_dir, dashboard_dir, topic, count, *by_token = sys.argv[1:]
    version, port, count = int(version), int(port), int(count)
    if by_token:
        wss_port, origin, token = by_token
        dashboard = Client(version, host, int(wss_port), dashboard_dir, origin, token)
    else:
        dashboard = Client(version, host, port, dashboard_dir)
    dashboard.subscribe(topic)
    device = Client(version, host, port, device_dir)
    arrived = []
    for qos in (0, 1, 2):
        sent = [(topic, f"{qos}-{n}".encode(), qos) for n in range(count)]
        infos = [device.mqtt.publish(t, payload, q) for (t, payload, q) in sent]
        for info in infos:
            info.wait_for_publish(WITHIN_SECONDS)
            if not info.is_published():
                fail(f"QoS {qos} was not acknowledged")
        received = dashboard.receive(count)
        if received != sent:
            fail(f"sent {sent}, received {received}")
        arrived.append(len(received))
    device.close()
    dashboard.close()
    print(json.dumps({"arrived": arrived}))


if __name__ == "__main__":
    main()
