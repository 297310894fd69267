"""Checks a device's signature with the entry of its message, its certificate, and openssl.

Usage: check_statement.py CERT.pem [PAYLOAD_FILE SALT_HEX] < ENTRY.json

What a stranger does, years later: rebuilds what was signed from the fields `protected` and `c` of the
entry, and lets openssl verify `sig` with the key of the certificate. With payload and salt it also
sees that they are what was signed. Exits 0 if all of it is so.
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


def head(major, length):
    return bytes([major << 5 | length]) if length < 24 else (
        bytes([major << 5 | 24, length]) if length < 256 else bytes([major << 5 | 25]) + length.to_bytes(2, "big")
    )


def der(signature):
    """ECDSA's r and s as openssl wants them."""
    def integer(number):
        digits = number.to_bytes(number.bit_length() // 8 + 1, "big")
        return b"\x02" + bytes([len(digits)]) + digits

    both = b"".join(integer(int.from_bytes(half, "big")) for half in (signature[:32], signature[32:]))
    return b"\x30" + bytes([len(both)]) + both


def main():
    certificate, *opened = sys.argv[1:]
    entry = json.load(sys.stdin)
    protected, c, signature = decode(entry["protected"]), decode(entry["c"]), decode(entry["sig"])
    tbs = b"\x84" + head(3, 10) + b"Signature1" + head(2, len(protected)) + protected
    tbs += head(2, 0) + head(2, len(c)) + c
    if opened:
        with open(opened[0], "rb") as file:
            if hashlib.sha256(bytes.fromhex(opened[1]) + file.read()).digest() != c:
                sys.exit("payload and salt are not what was signed")
    with tempfile.TemporaryDirectory() as directory:
        path = lambda name: os.path.join(directory, name)
        for name, content in (("statement.tbs", tbs), ("statement.sig.der", der(signature))):
            with open(path(name), "wb") as file:
                file.write(content)
        with open(path("pub.pem"), "wb") as file:
            subprocess.run(
                ["openssl", "x509", "-in", certificate, "-noout", "-pubkey"], stdout=file, check=True
            )
        verified = subprocess.run(
            ["openssl", "dgst", "-sha256", "-verify", path("pub.pem"),
             "-signature", path("statement.sig.der"), path("statement.tbs")],
        )
    sys.exit(verified.returncode)


main()
