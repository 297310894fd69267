"""Signs an MQTT message as `WIRE.md` says: Python's standard library, and openssl for the key.

A second implementation beside the Rust one, for whoever writes a third: it shares no code with it
or with the broker. As a program it prints the value of the user property `avow-statement`:

    sign.py --key KEY.pem --cert CERT.pem --identity URI --audience ORIGIN --topic TOPIC \\
            --epoch N --seq N [--qos N] [--retain] [--embed] < PAYLOAD
"""

import argparse
import base64
import hashlib
import os
import ssl
import subprocess
import sys
import tempfile
import time

MESSAGE_TYPE = "application/avow-message+cose"
SHA_256, OCTET_STREAM = -16, 42
LABEL_SALT, LABEL_PAYLOAD = -65537, -65538
CLAIM_EPOCH, CLAIM_SEQ, CLAIM_MANNER = -65537, -65538, -65539


def head(major, argument):
    """The head of a CBOR item, as short as it can be."""
    for info, length in ((None, 0), (24, 1), (25, 2), (26, 4), (27, 8)):
        if info is None and argument < 24:
            return bytes([major << 5 | argument])
        if info is not None and argument < 1 << 8 * length:
            return bytes([major << 5 | info]) + argument.to_bytes(length, "big")
    raise ValueError("no argument of CBOR is that large")


def cbor(value):
    """CBOR in the deterministic encoding of RFC 8949, 4.2.1."""
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(cbor(item) for item in value)
    if isinstance(value, dict):
        pairs = sorted((cbor(key), cbor(item)) for key, item in value.items())
        return head(5, len(pairs)) + b"".join(key + item for key, item in pairs)
    raise TypeError(f"{type(value)} has no place in a statement")


def openssl(*arguments, stdin=None):
    return subprocess.run(["openssl", *arguments], input=stdin, stdout=subprocess.PIPE, check=True).stdout


def is_ed25519(key):
    return b"ED25519" in openssl("pkey", "-in", key, "-noout", "-text").upper()


def der_integers(der):
    """The two integers of an ECDSA signature in DER, 32 bytes each."""
    assert der[0] == 0x30
    at, numbers = 2, []
    for _ in range(2):
        assert der[at] == 0x02
        length = der[at + 1]
        numbers.append(int.from_bytes(der[at + 2 : at + 2 + length], "big"))
        at += 2 + length
    return b"".join(number.to_bytes(32, "big") for number in numbers)


def sign(key, message):
    """64 bytes: Ed25519, or r and s of ES256."""
    if not is_ed25519(key):
        return der_integers(openssl("dgst", "-sha256", "-sign", key, stdin=message))
    with tempfile.NamedTemporaryFile() as file:
        file.write(message)
        file.flush()
        return openssl("pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", file.name)


def statement(key, x5t, identity, audience, topic, payload, epoch, seq, qos=1, retain=False,
              iat=None, salt=None, cti=None, embed=False):
    """The COSE_Sign1 object. `x5t` is the SHA-256 of the certificate in DER."""
    salt = os.urandom(16) if salt is None else salt
    cti = os.urandom(16) if cti is None else cti
    claims = {
        1: identity,
        2: topic,
        3: audience,
        6: int(time.time()) if iat is None else iat,
        7: cti,
        CLAIM_EPOCH: epoch,
        CLAIM_SEQ: seq,
        CLAIM_MANNER: qos | retain << 2,
    }
    protected = cbor({
        1: -8 if is_ed25519(key) else -7,
        15: claims,
        16: MESSAGE_TYPE,
        34: [SHA_256, x5t],
        258: SHA_256,
        259: OCTET_STREAM,
    })
    commitment = hashlib.sha256(salt + payload).digest()
    signature = sign(key, cbor(["Signature1", protected, b"", commitment]))
    unprotected = {LABEL_SALT: salt}
    if embed:
        unprotected[LABEL_PAYLOAD] = payload
    return b"\xd2" + cbor([protected, unprotected, commitment, signature])


def x5t_of(pem_file):
    """The SHA-256 of the first certificate of a PEM file."""
    with open(pem_file, encoding="ascii") as file:
        pem = file.read()
    end = "-----END CERTIFICATE-----"
    first = pem[pem.index("-----BEGIN CERTIFICATE-----") : pem.index(end) + len(end)]
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).digest()


def property_value(cose):
    return base64.urlsafe_b64encode(cose).rstrip(b"=").decode()


def main():
    parser = argparse.ArgumentParser(description="prints the value of the user property avow-statement")
    for name in ("key", "cert", "identity", "audience", "topic"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("epoch", "seq"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--qos", type=int, default=1)
    parser.add_argument("--iat", type=int, help="seconds since 1970; the clock's if absent")
    parser.add_argument("--retain", action="store_true")
    parser.add_argument("--embed", action="store_true", help="the object with the payload in it, as it is")
    given = parser.parse_args()
    cose = statement(
        given.key, x5t_of(given.cert), given.identity, given.audience, given.topic,
        sys.stdin.buffer.read(), given.epoch, given.seq, given.qos, given.retain, given.iat,
        embed=given.embed,
    )
    if given.embed:
        sys.stdout.buffer.write(cose)
    else:
        print(property_value(cose))


if __name__ == "__main__":
    main()
