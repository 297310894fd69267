#!/usr/bin/env python3
"""Checks an evidence bundle of Avow: Python's standard library and openssl, nothing of ours.

    python3 verify.py [DIR] [--log-key VKEY] [--root FILE] [--manifest-sha256 HEX]

DIR is the bundle (default: where this file is). Without --log-key and --root the keys in the bundle are
believed: then the bundle agrees with itself, and nothing more. Give the log's verifier key and the trust
anchor as you had them from elsewhere to know that they are the right ones. --manifest-sha256 is the digest
that `avow audit bundle` printed; it binds this script and VERIFY.md too.

Exit 0: everything agrees. 1: something does not, and the line says which file. 2: no answer.
"""
import argparse
import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile

FORMAT = "avow-bundle-1"
ALWAYS = {"entry.json", "entry.tlog-proof", "checkpoint", "policy.txt", "VERIFY.md", "verify.py"}
# What may be missing, and why.
REASONS = {
    "connect.json": {"no-connection", "is-entry"},
    "connect.tlog-proof": {"no-connection", "is-entry"},
    "cert-entry.json": {"no-certificate", "is-entry"},
    "cert-entry.tlog-proof": {"no-certificate", "is-entry"},
    "device.pem": {"no-certificate", "hashes-only"},
    "chain.pem": {"no-certificate", "hashes-only", "no-intermediates"},
    "root.pem": {"no-certificate", "hashes-only"},
    "crl.pem": {"revocation-unchecked"},
    "payload.bin": {"no-body", "erased"},
    "salt.bin": {"no-body", "erased"},
    "properties.bin": {"no-body", "erased", "no-properties"},
    "statement.cose": {"unsigned"},
    "statement.tbs": {"unsigned"},
    "statement.sig.der": {"unsigned"},
    "receipt.cose": {"no-message", "no-receipt-key"},
    "receipt.pub": {"no-message", "no-receipt-key"},
}


class Bad(Exception):
    def __init__(self, name, why):
        super().__init__(f"{name}: {why}")


def need(condition, name, why):
    if not condition:
        raise Bad(name, why)


def b64url(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sha256(data):
    return hashlib.sha256(data).digest()


def commitment(salt, data):
    return base64.urlsafe_b64encode(sha256(salt + data)).rstrip(b"=").decode()


def pem(label, der):
    text = base64.b64encode(der).decode()
    lines = "".join(text[at : at + 64] + "\n" for at in range(0, len(text), 64))
    return f"-----BEGIN {label}-----\n{lines}-----END {label}-----\n".encode()


def openssl(*arguments):
    try:
        return subprocess.run(["openssl", *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        print("no openssl: no answer")
        sys.exit(2)


def spki_ed25519(public):
    return bytes.fromhex("302a300506032b6570032100") + public


def signed_by(spki, message, signature, name, is_ed25519):
    """Whether openssl finds the signature good."""
    with tempfile.TemporaryDirectory() as scratch:
        paths = {}
        parts = {"key": pem("PUBLIC KEY", spki), "message": message, "signature": signature}
        for part, data in parts.items():
            paths[part] = os.path.join(scratch, part)
            with open(paths[part], "wb") as file:
                file.write(data)
        if is_ed25519:
            said = openssl("pkeyutl", "-verify", "-pubin", "-inkey", paths["key"], "-rawin",
                           "-in", paths["message"], "-sigfile", paths["signature"])
        else:
            said = openssl("dgst", "-sha256", "-verify", paths["key"],
                           "-signature", paths["signature"], paths["message"])
    need(said.returncode == 0, name, "the signature does not fit")


# --- The log ------------------------------------------------------------------------------------


class LogKey:
    """A verifier key of C2SP signed-note: name, id, Ed25519."""

    def __init__(self, text, where):
        parts = text.split("+", 2)
        need(len(parts) == 3, where, "no verifier key")
        self.name, given, key = parts
        try:
            raw = base64.b64decode(key, validate=True)
        except ValueError:
            raise Bad(where, "no verifier key") from None
        need(len(raw) == 33 and raw[0] == 1, where, "no Ed25519 verifier key")
        self.public = raw[1:]
        self.id = sha256(self.name.encode() + b"\n" + raw)[:4]
        need(self.id.hex() == given, where, "the key id is not that of the key")
        need(f"{self.name}+{given}+{base64.b64encode(raw).decode()}" == text, where, "odd form")


def open_checkpoint(note, key, name):
    text, _, rest = note.rpartition("\n\n")
    text += "\n"
    need(rest.endswith("\n"), name, "no signed note")
    is_signed = False
    for line in rest[:-1].split("\n"):
        parts = line.split(" ")
        need(len(parts) == 3 and parts[0] == "\u2014", name, "a signature line is malformed")
        if parts[1] != key.name:
            continue
        try:
            raw = base64.b64decode(parts[2], validate=True)
        except ValueError:
            raise Bad(name, "a signature line is malformed") from None
        if raw[:4] == key.id:
            signed_by(spki_ed25519(key.public), text.encode(), raw[4:], name, True)
            is_signed = True
    need(is_signed, name, "not signed by the log's key")
    lines = text[:-1].split("\n")
    need(len(lines) >= 3 and lines[0] == key.name, name, "the checkpoint of another log")
    need(lines[1].isdigit(), name, "no tree size")
    try:
        root = base64.b64decode(lines[2], validate=True)
    except ValueError:
        raise Bad(name, "no root hash") from None
    need(len(root) == 32, name, "no root hash")
    return int(lines[1]), root


def root_of(leaf, index, size, hashes):
    """RFC 9162, 2.1.3.2."""
    fn, sn, node, rest = index, size - 1, leaf, list(hashes)
    while rest:
        if sn == 0:
            return None
        sibling = rest.pop(0)
        if fn & 1 or fn == sn:
            node = sha256(b"\x01" + sibling + node)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            node = sha256(b"\x01" + node + sibling)
        fn >>= 1
        sn >>= 1
    return node if sn == 0 else None


def check_proof(files, entry, proof, key):
    """Whether `entry` is in the log; its index."""
    try:
        text = files[proof].decode()
    except UnicodeDecodeError:
        raise Bad(proof, "no text") from None
    head, _, note = text.partition("\n\n")
    lines = head.split("\n")
    need(lines[0] == "c2sp.org/tlog-proof@v1", proof, "no tlog-proof@v1")
    need(len(lines) > 1 and lines[1].startswith("index ") and lines[1][6:].isdigit(), proof, "no index")
    index = int(lines[1][6:])
    try:
        hashes = [base64.b64decode(line, validate=True) for line in lines[2:]]
    except ValueError:
        raise Bad(proof, "a hash is malformed") from None
    need(note.encode() == files["checkpoint"], proof, "its checkpoint is not the file `checkpoint`")
    size, root = open_checkpoint(note, key, "checkpoint")
    need(index < size, proof, "the checkpoint does not cover it")
    leaf = sha256(b"\x00" + files[entry])
    need(root_of(leaf, index, size, hashes) == root, entry, f"is not what the log has at index {index}")
    return index


def fields(files, name):
    try:
        found = json.loads(files[name])
    except ValueError:
        raise Bad(name, "no JSON") from None
    need(isinstance(found, dict), name, "no entry")
    return found


# --- What the entry names ------------------------------------------------------------------------


def check_body(files, entry):
    if "payload.bin" not in files:
        need("salt.bin" not in files and "properties.bin" not in files, "salt.bin", "without payload.bin")
        return
    need("salt.bin" in files, "salt.bin", "is missing beside payload.bin")
    salt = files["salt.bin"]
    need(len(salt) == 16, "salt.bin", "is not 16 bytes")
    found = commitment(salt, files["payload.bin"])
    need(found == entry.get("c"), "payload.bin", "salt and payload are not what the entry commits to")
    properties = files.get("properties.bin")
    if properties is None:
        need("props" not in entry, "properties.bin", "is missing, and the entry commits to it")
    else:
        found = commitment(salt, properties)
        need(found == entry.get("props"), "properties.bin", "is not what the entry commits to")


def check_certificates(files, entry, connect, cert):
    if connect is not None:
        need(connect.get("who") == entry.get("who"), "connect.json", "is another peer's")
    if cert is None:
        for name in ("device.pem", "chain.pem", "root.pem"):
            need(name not in files, name, "without cert-entry.json")
        return None
    need(cert.get("who") == entry.get("who"), "cert-entry.json", "is another peer's")
    if "chain" not in cert:
        return None
    chain = [b64url(text) for text in cert["chain"]]
    anchor = b64url(cert["anchor"])
    need(files.get("device.pem") == pem("CERTIFICATE", chain[0]), "device.pem", "is not that of the entry")
    between = b"".join(pem("CERTIFICATE", der) for der in chain[1:])
    need(files.get("chain.pem", b"") == between, "chain.pem", "is not that of the entry")
    need(files.get("root.pem") == pem("CERTIFICATE", anchor), "root.pem", "is not that of the entry")
    x5t = base64.urlsafe_b64encode(sha256(chain[0])).rstrip(b"=").decode()
    need(cert.get("x5t") == x5t, "cert-entry.json", "names another certificate")
    if connect is not None:
        need(connect.get("x5t") == x5t, "connect.json", "names another certificate")
    return chain[0]


def check_path(directory, files, at, root):
    arguments = ["verify", "-no-CApath", "-no-CAstore", "-CAfile", root, "-attime", str(at)]
    if "chain.pem" in files:
        arguments += ["-untrusted", os.path.join(directory, "chain.pem")]
    said = openssl(*arguments, os.path.join(directory, "device.pem"))
    need(said.returncode == 0, "device.pem", f"the path does not verify: {said.stderr.decode().strip()}")


def public_key(directory):
    said = openssl("x509", "-in", os.path.join(directory, "device.pem"), "-noout", "-pubkey")
    need(said.returncode == 0, "device.pem", "openssl does not read it")
    body = said.stdout.decode().split("-----")[2]
    return base64.b64decode("".join(body.split()))


def bstr(data):
    if len(data) < 24:
        return bytes([0x40 | len(data)]) + data
    if len(data) < 256:
        return bytes([0x58, len(data)]) + data
    return b"\x59" + len(data).to_bytes(2, "big") + data


def der_integer(data):
    data = data.lstrip(b"\x00") or b"\x00"
    if data[0] & 0x80:
        data = b"\x00" + data
    return b"\x02" + bytes([len(data)]) + data


def check_statement(directory, files, entry):
    if "sig" not in entry:
        for name in ("statement.cose", "statement.tbs", "statement.sig.der"):
            need(name not in files, name, "the entry has no statement")
        return False
    protected, signature = b64url(entry["protected"]), b64url(entry["sig"])
    c = b64url(entry["c"])
    tbs = b"\x84\x6aSignature1" + bstr(protected) + b"\x40" + bstr(c)
    need(files.get("statement.tbs") == tbs, "statement.tbs", "is not what the entry says was signed")
    salt = files.get("salt.bin")
    header = b"\xa0" if salt is None else b"\xa1\x3a\x00\x01\x00\x00" + bstr(salt)
    cose = b"\xd2\x84" + bstr(protected) + header + bstr(c) + bstr(signature)
    need(files.get("statement.cose") == cose, "statement.cose", "is not the statement of the entry")
    is_ed25519 = protected[1:3] == b"\x01\x27"
    if is_ed25519:
        der = signature
    else:
        body = der_integer(signature[:32]) + der_integer(signature[32:])
        der = b"\x30" + bytes([len(body)]) + body
    need(files.get("statement.sig.der") == der, "statement.sig.der", "is not that of the entry")
    signed_by(public_key(directory), tbs, der, "statement.sig.der", is_ed25519)
    return True


def cbor(value):
    """The few forms that a receipt has, in the one way it writes them."""
    def head(major, number):
        for limit, length, extra in ((24, 0, 0), (256, 1, 24), (65536, 2, 25), (2**32, 4, 26), (2**64, 8, 27)):
            if number < limit:
                first = number if length == 0 else extra
                return bytes([major << 5 | first]) + (number.to_bytes(length, "big") if length else b"")
        raise ValueError("too large")
    if isinstance(value, dict):
        return head(5, len(value)) + b"".join(cbor(key) + cbor(of) for key, of in value.items())
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    return head(2, len(value)) + value


def check_receipt(files, entry, index, origin):
    if "receipt.cose" not in files:
        need("receipt.pub" not in files, "receipt.pub", "without receipt.cose")
        return
    need("receipt.pub" in files, "receipt.pub", "is missing beside receipt.cose")
    text = files["receipt.pub"].decode(errors="replace")
    try:
        spki = base64.b64decode("".join(text.split("-----")[2].split()), validate=True)
    except (IndexError, ValueError):
        raise Bad("receipt.pub", "no public key") from None
    need(files["receipt.pub"] == pem("PUBLIC KEY", spki), "receipt.pub", "odd form")
    need(len(spki) == 44 and spki == spki_ed25519(spki[12:]), "receipt.pub", "no Ed25519 key")
    said = {1: origin, 2: index, 3: sha256(b"\x00" + files["entry.json"]), 4: entry["t"], 5: entry["lvl"]}
    if "cti" in entry:
        said[6] = b64url(entry["cti"])
    header = {1: -8, 3: "application/avow-receipt+cbor", 4: sha256(spki[12:])[:8],
              16: "application/avow-receipt+cose"}
    protected, payload = cbor(header), cbor(said)
    start = b"\xd2\x84" + bstr(protected) + b"\xa0" + bstr(payload) + b"\x58\x40"
    cose = files["receipt.cose"]
    need(cose.startswith(start) and len(cose) == len(start) + 64, "receipt.cose", "does not promise this entry")
    tbs = b"\x84\x6aSignature1" + bstr(protected) + b"\x40" + bstr(payload)
    signed_by(spki, tbs, cose[len(start):], "receipt.cose", True)


# --- The whole -------------------------------------------------------------------------------------


def check_manifest(directory, digest):
    with open(os.path.join(directory, "MANIFEST.json"), "rb") as file:
        raw = file.read()
    if digest is not None:
        need(hashlib.sha256(raw).hexdigest() == digest, "MANIFEST.json", "is not the one that was named")
    try:
        manifest = json.loads(raw)
        again = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    except ValueError:
        raise Bad("MANIFEST.json", "no JSON") from None
    need(again.encode() == raw, "MANIFEST.json", "is not in its one form")
    keys = {"absent", "files", "format", "index", "origin"}
    need(isinstance(manifest, dict) and set(manifest) == keys, "MANIFEST.json", "has other fields")
    need(manifest["format"] == FORMAT, "MANIFEST.json", "is of another format")
    listed, absent = manifest["files"], manifest["absent"]
    need(isinstance(listed, dict) and isinstance(absent, dict), "MANIFEST.json", "is malformed")
    found = set(os.listdir(directory)) - {"MANIFEST.json"}
    for name in sorted(set(listed) - found):
        raise Bad(name, "is missing")
    for name in sorted(found - set(listed)):
        raise Bad(name, "is not in MANIFEST.json")
    for name, why in absent.items():
        need(why in REASONS.get(name, ()), "MANIFEST.json", f"gives no known reason for {name}")
    need(set(listed) | set(absent) == ALWAYS | set(REASONS), "MANIFEST.json", "does not name every file")
    need(not set(listed) & set(absent), "MANIFEST.json", "names a file twice")
    files = {}
    for name, expected in listed.items():
        path = os.path.join(directory, name)
        need(os.path.isfile(path) and not os.path.islink(path), name, "is no plain file")
        with open(path, "rb") as file:
            files[name] = file.read()
        need(hashlib.sha256(files[name]).hexdigest() == expected, name, "has another SHA-256 than MANIFEST.json says")
    return manifest, files


def check_policy(files, given):
    text = files["policy.txt"].decode(errors="replace")
    need(text.startswith("log ") and text.endswith("\n") and text.count("\n") == 1, "policy.txt", "is malformed")
    inside = text[4:-1]
    if given is not None:
        need(given == inside, "policy.txt", "has another key than --log-key")
    return LogKey(inside, "policy.txt")


def check_reasons(absent, entry, cert):
    """The reasons in the manifest that the entries speak of."""
    has_body = "c" in entry and not str(entry.get("type")).startswith("retain.")
    need(has_body == (absent.get("payload.bin") != "no-body"), "MANIFEST.json", "the reason for payload.bin is not so")
    for name in ("payload.bin", "salt.bin", "properties.bin"):
        if name in absent and absent[name] != "no-properties":
            need(absent[name] == absent.get("payload.bin"), "MANIFEST.json", f"the reason for {name} is not so")
    for name in ("device.pem", "root.pem", "chain.pem"):
        if name in absent and absent[name] != "no-intermediates":
            expected = "hashes-only" if cert is not None else "no-certificate"
            need(absent[name] == expected, "MANIFEST.json", f"the reason for {name} is not so")
    kind = entry.get("type")
    for name, own in (("connect", "connect"), ("cert-entry", "cert")):
        for end in (".json", ".tlog-proof"):
            if name + end in absent:
                need((absent[name + end] == "is-entry") == (kind == own), "MANIFEST.json", f"the reason for {name + end} is not so")
    for name in ("receipt.cose", "receipt.pub"):
        if name in absent:
            expected = "no-receipt-key" if kind == "publish" else "no-message"
            need(absent[name] == expected, "MANIFEST.json", f"the reason for {name} is not so")


def check(arguments):
    directory = arguments.directory
    manifest, files = check_manifest(directory, arguments.manifest_sha256)
    key = check_policy(files, arguments.log_key)
    entry = fields(files, "entry.json")
    index = check_proof(files, "entry.json", "entry.tlog-proof", key)
    need(manifest["index"] == index and type(manifest["index"]) is int, "MANIFEST.json", "names another index")
    need(manifest["origin"] == key.name, "MANIFEST.json", "names another log")
    connect = cert = None
    kind = entry.get("type")
    if "connect.json" in files:
        connect = fields(files, "connect.json")
        at = check_proof(files, "connect.json", "connect.tlog-proof", key)
        need(entry.get("conn") == at, "connect.json", "is not the one that the entry names")
    else:
        need("conn" not in entry, "connect.json", "is missing, and the entry names it")
        connect = entry if kind == "connect" else None
    if "cert-entry.json" in files:
        cert = fields(files, "cert-entry.json")
        at = check_proof(files, "cert-entry.json", "cert-entry.tlog-proof", key)
        need((connect or {}).get("cert") == at, "cert-entry.json", "is not the one that connect.json names")
    else:
        need("cert" not in (connect or {}), "cert-entry.json", "is missing, and connect.json names it")
        cert = entry if kind == "cert" else None
    check_reasons(manifest["absent"], entry, cert)
    check_body(files, entry)
    device = check_certificates(files, entry, connect, cert)
    if device is not None:
        at = (connect or cert)["t"] // 1_000_000_000
        root = arguments.root or os.path.join(directory, "root.pem")
        check_path(directory, files, at, root)
    is_signed = check_statement(directory, files, entry)
    check_receipt(files, entry, index, key.name)
    print(f"ok: entry {index} of {key.name} ({kind}) is in the signed log, as it stands in entry.json")
    if "payload.bin" in files:
        print("ok: payload.bin is the payload that the entry commits to")
    elif manifest["absent"].get("payload.bin") == "erased":
        print("ok: the payload was erased; what the entry says of it still stands")
    if device is not None:
        print("ok: device.pem led to root.pem when the connection began")
    if is_signed:
        print("ok: the device itself signed it (A2)")
    elif "lvl" in entry:
        print(f"note: level {entry['lvl']}: that the device sent it is the broker's word")
    if arguments.log_key is None or arguments.root is None:
        print("note: the keys were taken from the bundle; --log-key and --root hold it against yours")


def main():
    parser = argparse.ArgumentParser(description="Checks an evidence bundle of Avow.")
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument("directory", nargs="?", default=here)
    parser.add_argument("--log-key")
    parser.add_argument("--root")
    parser.add_argument("--manifest-sha256")
    arguments = parser.parse_args()
    try:
        check(arguments)
    except Bad as bad:
        print(f"FAILED: {bad}")
        return 1
    except OSError as error:
        print(f"FAILED: {error}")
        return 1
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        print(f"FAILED: something has another form than it must: {error!r}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
