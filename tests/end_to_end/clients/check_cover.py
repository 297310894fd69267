"""Checks a device's signatures over batches with the entries of the log, its certificate, and openssl.

Usage: check_cover.py CERT.pem IDENTITY ORIGIN < ENTRIES.ndjson

What a stranger does, years later: makes the chain of every `cover` entry again of the entries that it
names (`devices/signer/BATCH.md`), and lets openssl verify `sig` over its head with the key of the
certificate. It needs no payload and no salt. Prints how many messages are covered; exits 1 if a
cover is over something else.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def number(value):
    return value.to_bytes(8, "big")


def text(value):
    return len(value.encode()).to_bytes(2, "big") + value.encode()


def made(cover, entries, identity, origin):
    """The head over the entries that a cover names; none if one of them is not there."""
    linked = {
        entry["seq"]: entry
        for entry in entries
        if entry["type"] in ("publish", "publish.refused")
        and entry.get("epoch") == cover["epoch"]
        and "sig" not in entry
    }
    head = sha256(b"\0", number(cover["epoch"]), number(cover["first"]), text(identity), text(origin))
    for seq in range(cover["first"], cover["last"] + 1):
        entry = linked.get(seq)
        if entry is None:
            return None
        manner = bytes([entry["qos"] | entry.get("retain", False) << 2])
        link = sha256(b"\1", number(seq), manner, text(entry["topic"]), decode(entry["c"]))
        head = sha256(b"\2", head, link)
    return head


def byte_string(value):
    length = len(value)
    if length < 24:
        return bytes([0x40 | length]) + value
    return (bytes([0x58, length]) if length < 256 else b"\x59" + length.to_bytes(2, "big")) + value


def der(signature):
    """ECDSA's r and s as openssl wants them."""
    def integer(value):
        digits = value.to_bytes(value.bit_length() // 8 + 1, "big")
        return b"\x02" + bytes([len(digits)]) + digits

    both = b"".join(integer(int.from_bytes(half, "big")) for half in (signature[:32], signature[32:]))
    return b"\x30" + bytes([len(both)]) + both


def is_signed(certificate, protected, head, signature):
    tbs = b"\x84\x6aSignature1" + byte_string(protected) + byte_string(b"") + byte_string(head)
    with tempfile.TemporaryDirectory() as directory:
        path = lambda name: os.path.join(directory, name)
        for name, content in (("cover.tbs", tbs), ("cover.sig.der", der(signature))):
            with open(path(name), "wb") as file:
                file.write(content)
        with open(path("pub.pem"), "wb") as file:
            command = ["openssl", "x509", "-in", certificate, "-noout", "-pubkey"]
            subprocess.run(command, stdout=file, check=True)
        command = ["openssl", "dgst", "-sha256", "-verify", path("pub.pem"),
                   "-signature", path("cover.sig.der"), path("cover.tbs")]
        return subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0


def main():
    certificate, identity, origin = sys.argv[1:]
    entries = [json.loads(line) for line in sys.stdin if line.strip()]
    covered = 0
    for cover in (entry for entry in entries if entry["type"] == "cover"):
        head = made(cover, entries, identity, origin)
        name = f"the cover of {cover['first']} to {cover['last']} in epoch {cover['epoch']}"
        if head is None or head != decode(cover["head"]):
            sys.exit(f"{name} is over other messages than the entries")
        if not is_signed(certificate, decode(cover["protected"]), head, decode(cover["sig"])):
            sys.exit(f"{name} is not signed by the key of {certificate}")
        covered += cover["last"] - cover["first"] + 1
    print(json.dumps({"covered": covered}))


main()
