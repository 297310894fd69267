"""paho-mqtt and devices/signer/sign.py against Avow: a device that signs what it publishes.

Usage: paho_signed.py VERSION HOST PORT DEVICE_DIR DASHBOARD_DIR TOPIC ORIGIN

VERSION is 4 (3.1.1, the payload embedded in its statement) or 5 (the statement in a user property).
Prints one JSON object: which payloads arrived, and in 5 the Reason Codes of a resend, of a bent
payload, of an older epoch and of a message that nobody signed.
"""

import json
import os
import sys
import threading

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import paho_client

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../../devices/signer"))
import sign  # noqa: E402


class Device(paho_client.Client):
    """Signs with the key of its certificate."""

    def __init__(self, version, host, port, directory, origin):
        self.answers, self.answered = {}, threading.Condition()
        super().__init__(version, host, port, directory)
        self.mqtt.on_publish = self.on_publish
        with open(os.path.join(directory, "connect.json"), encoding="utf-8") as file:
            self.identity = json.load(file)["identity"]
        self.version, self.origin = version, origin
        self.key = os.path.join(directory, "key.pem")
        self.x5t = sign.x5t_of(os.path.join(directory, "cert.pem"))

    def on_publish(self, _client, _userdata, mid, reason, _properties):
        with self.answered:
            self.answers[mid] = reason.value
            self.answered.notify_all()

    def statement(self, topic, payload, epoch, seq, qos):
        return sign.statement(
            self.key, self.x5t, self.identity, self.origin, topic, payload, epoch, seq, qos,
            embed=self.version == 4,
        )

    def send(self, topic, payload, qos, cose=None):
        """Publishes; the Reason Code of the answer."""
        properties = None
        if self.version == 4:
            payload = cose or payload
        elif cose:
            properties = Properties(PacketTypes.PUBLISH)
            properties.UserProperty = [("avow-statement", sign.property_value(cose))]
        info = self.mqtt.publish(topic, payload, qos, properties=properties)
        with self.answered:
            within = paho_client.WITHIN_SECONDS
            if not self.answered.wait_for(lambda: info.mid in self.answers, within):
                paho_client.fail(f"no answer to {payload!r}")
            return self.answers.pop(info.mid)


def main():
    version, host, port, device_dir, dashboard_dir, topic, origin = sys.argv[1:]
    version, port = int(version), int(port)
    dashboard = paho_client.Client(version, host, port, dashboard_dir)
    dashboard.subscribe(topic)
    device = Device(version, host, port, device_dir, origin)
    sent = []
    for seq, qos in enumerate((0, 1, 2, 1), start=1):
        payload = json.dumps({"ts": 1, "seq": seq, "values": {"torque": 21.5}}).encode()
        cose = device.statement(topic, payload, 7, seq, qos)
        if device.send(topic, payload, qos, cose) != 0:
            paho_client.fail(f"{payload} was refused")
        sent.append((topic, payload, qos))
    if dashboard.receive(len(sent)) != sent:
        paho_client.fail("something else arrived")
    answers = {}
    if version == 5:
        answers["resend"] = device.send(topic, payload, 1, cose)
        answers["bent"] = device.send(topic, payload.replace(b"21", b"22"), 1, cose)
        older = device.statement(topic, payload, 6, 9, 1)
        answers["older"] = device.send(topic, payload, 1, older)
        answers["unsigned"] = device.send(topic, payload, 1)
    # The last one, so that whatever arrived before it has arrived.
    last = json.dumps({"ts": 2, "seq": 9, "values": {"torque": 0}}).encode()
    if device.send(topic, last, 1, device.statement(topic, last, 7, 5, 1)) != 0:
        paho_client.fail("the last one was refused")
    if dashboard.receive(1) != [(topic, last, 1)]:
        paho_client.fail("what was refused or resent arrived")
    device.close()
    dashboard.close()
    print(json.dumps({"arrived": len(sent) + 1, "answers": answers}))


main()
