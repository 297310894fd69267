"""A device that signs batches, with paho-mqtt, openssl and `devices/signer/batch.py`.

Usage: batch_client.py SIGNER_DIR HOST PORT DEVICE_DIR IDENTITY ORIGIN TOPIC

Links five messages, bends a cover, sends a good one, and sends one over a message that it kept to
itself. Prints one JSON object: the Reason Codes of everything, in order.
"""

import json
import os
import sys
import threading

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from batch import COVER_TOPIC, LINK_PROPERTY, Batch
from sign import x5t_of

WITHIN_SECONDS = 20


class Device:
    """A connected client that waits for each PUBACK."""

    def __init__(self, host, port, directory):
        path = lambda name: os.path.join(directory, name)
        with open(path("connect.json"), encoding="utf-8") as file:
            client_id = json.load(file)["client_id"]
        self.codes, self.acknowledged = [], threading.Condition()
        self.connected = threading.Event()
        self.mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, protocol=mqtt.MQTTv5)
        self.mqtt.tls_set(path("ca.pem"), path("cert.pem"), path("key.pem"))
        self.mqtt.on_connect = lambda *_: self.connected.set()
        self.mqtt.on_publish = self.on_publish
        self.mqtt.connect(host, port, keepalive=30)
        self.mqtt.loop_start()
        if not self.connected.wait(WITHIN_SECONDS):
            sys.exit("no CONNACK")

    def on_publish(self, _client, _userdata, _mid, reason, _properties):
        with self.acknowledged:
            self.codes.append(reason.value)
            self.acknowledged.notify_all()

    def publish(self, topic, payload, link=None):
        properties = Properties(PacketTypes.PUBLISH)
        if link is not None:
            properties.UserProperty = (LINK_PROPERTY, link)
        with self.acknowledged:
            before = len(self.codes)
            self.mqtt.publish(topic, payload, qos=1, properties=properties)
            if not self.acknowledged.wait_for(lambda: len(self.codes) > before, WITHIN_SECONDS):
                sys.exit(f"no PUBACK for a message on {topic}")


def main():
    _signer, host, port, directory, identity, origin, topic = sys.argv[1:]
    path = lambda name: os.path.join(directory, name)
    device = Device(host, int(port), directory)
    batch = Batch(path("key.pem"), x5t_of(path("cert.pem")), identity, origin, epoch=1)
    for number in range(5):
        payload = f"{number}".encode()
        device.publish(topic, payload, batch.link(topic, payload))
    cover = batch.cover()
    device.publish(COVER_TOPIC, cover[:-1] + bytes([cover[-1] ^ 1]))
    device.publish(COVER_TOPIC, cover)
    device.publish(topic, b"unlinked")
    batch.link(topic, b"kept to itself")
    device.publish(topic, b"5", batch.link(topic, b"5"))
    device.publish(COVER_TOPIC, batch.cover())
    device.mqtt.disconnect()
    device.mqtt.loop_stop()
    print(json.dumps(device.codes))


main()
