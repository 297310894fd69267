"""Links MQTT messages into a batch and signs for it as `BATCH.md` says; beside `sign.py`, which it
takes CBOR and openssl from. It shares no code with the Rust implementation or with the broker.
"""

import base64
import hashlib
import os
import time

from sign import SHA_256, cbor, is_ed25519, property_value, sign

COVER_TYPE = "application/avow-cover+cose"
COVER_TOPIC, LINK_PROPERTY = "$cover", "avow-link"
CLAIM_EPOCH, CLAIM_FIRST, CLAIM_LAST = -65537, -65540, -65541


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def number(value):
    return value.to_bytes(8, "big")


def text(value):
    return len(value.encode()).to_bytes(2, "big") + value.encode()


def begin(identity, audience, epoch, first):
    """The head before the first message of a batch."""
    return sha256(b"\0", number(epoch), number(first), text(identity), text(audience))


def link(seq, salt, topic, payload, qos=1, retain=False):
    """What a message adds to the chain."""
    manner = bytes([qos | retain << 2])
    return sha256(b"\1", number(seq), manner, text(topic), sha256(salt, payload))


def behind(head, digest):
    """The head behind one more message."""
    return sha256(b"\2", head, digest)


def link_property(epoch, seq, salt):
    """The value of the user property `avow-link`."""
    return property_value(number(epoch) + number(seq) + salt)


def cover(key, x5t, identity, audience, epoch, first, last, head, iat=None, cti=None):
    """The COSE_Sign1 object that is published on `$cover`."""
    claims = {
        1: identity,
        3: audience,
        6: int(time.time()) if iat is None else iat,
        7: os.urandom(16) if cti is None else cti,
        CLAIM_EPOCH: epoch,
        CLAIM_FIRST: first,
        CLAIM_LAST: last,
    }
    protected = cbor({1: -8 if is_ed25519(key) else -7, 15: claims, 16: COVER_TYPE, 34: [SHA_256, x5t]})
    signature = sign(key, cbor(["Signature1", protected, b"", head]))
    return b"\xd2" + cbor([protected, {}, head, signature])


class Batch:
    """The chain of one device in one epoch."""

    def __init__(self, key, x5t, identity, audience, epoch):
        self.key, self.x5t, self.identity, self.audience = key, x5t, identity, audience
        self.epoch, self.last, self.first, self.head = epoch, 0, None, None

    def link(self, topic, payload, qos=1, retain=False, salt=None):
        """Links a message; the value of its user property."""
        salt = os.urandom(16) if salt is None else salt
        self.last += 1
        if self.first is None:
            self.first = self.last
            self.head = begin(self.identity, self.audience, self.epoch, self.first)
        self.head = behind(self.head, link(self.last, salt, topic, payload, qos, retain))
        return link_property(self.epoch, self.last, salt)

    def cover(self, iat=None, cti=None):
        """Signs for what was linked; the payload of the PUBLISH on `$cover`."""
        first, self.first = self.first, None
        return cover(self.key, self.x5t, self.identity, self.audience, self.epoch, first, self.last,
                     self.head, iat, cti)
