#!/usr/bin/env python3
"""Checks a log of Avow, and proofs from it, without any of Avow's code.

    verify.py proof ENTRY PROOF VKEY             one entry is in the signed log
    verify.py log DIRECTORY VKEY [CHECKPOINT]    a whole log: checkpoint, tile/..., and that an older
                                                 signed checkpoint is a prefix of it
    verify.py consistency OLD NEW PROOF VKEY     one signed checkpoint is a prefix of another

ENTRY is the bytes that were hashed, PROOF a c2sp.org/tlog-proof@v1 (for `consistency`: one hash in
base64 a line), VKEY a file with the verifier key of the log, `<name>+<key id>+<base64>`, or the key
itself. DIRECTORY has the form of c2sp.org/tlog-tiles. Exit code 0: it holds. 1: it does not, and the
output says where. 2: it could not be checked.

Python 3.8 or later, standard library alone. Hashes: RFC 9162 section 2.1. Signatures: Ed25519,
RFC 8032 section 5.1.7. Notes: c2sp.org/signed-note. Nothing here needs to be secret or fast.
"""

import base64
import binascii
import hashlib
import json
import os
import sys

WIDTH = 256


class Bad(Exception):
    """It does not hold, and where."""


# --- Ed25519: RFC 8032 section 5.1 -------------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_1 = pow(2, (P - 1) // 4, P)


def add(a, b):
    """Adds two points in extended coordinates (X, Y, Z, T)."""
    m, n = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = n - m, d - c, d + c, n + m
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(scalar, point):
    total = (0, 1, 1, 0)
    while scalar > 0:
        if scalar & 1:
            total = add(total, point)
        point = add(point, point)
        scalar >>= 1
    return total


def decode_point(text):
    """Section 5.1.3; None if it is no point."""
    y = int.from_bytes(text, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P != 0:
        x = x * ROOT_OF_MINUS_1 % P
    if (x * x - square) % P != 0 or (x == 0 and sign == 1):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


BASE = decode_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def verify_ed25519(public, message, signature):
    """Whether `signature` over `message` is that of the key `public`."""
    if len(public) != 32 or len(signature) != 64:
        return False
    a, r = decode_point(public), decode_point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L:
        return False
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    k = int.from_bytes(digest, "little") % L
    left, right = multiply(s, BASE), add(r, multiply(k, a))
    same_x = (left[0] * right[2] - right[0] * left[2]) % P == 0
    return same_x and (left[1] * right[2] - right[1] * left[2]) % P == 0


# --- The tree: RFC 9162 section 2.1 --------------------------------------------------------------

def leaf_hash(entry):
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_hash(hashes):
    """The root over hashes of complete subtrees of one height."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    while len(hashes) > 1:
        last = hashes[-1:] if len(hashes) % 2 else []
        hashes = [node_hash(*pair) for pair in zip(hashes[::2], hashes[1::2])] + last
    return hashes[0]


def verify_inclusion(leaf, index, size, proof, root):
    """Section 2.1.3.2."""
    if index >= size:
        raise Bad("the proof speaks of entry %d of a log of %d" % (index, size))
    node, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise Bad("the proof has too many hashes")
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            while not node & 1 and node != 0:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise Bad("the proof has too few hashes")
    if found != root:
        raise Bad("the proof does not lead from entry %d to the root hash of the checkpoint" % index)


def verify_consistency(old, old_root, new, new_root, proof):
    """Section 2.1.4.2."""
    if old > new:
        raise Bad("the older checkpoint is the larger one")
    if old in (0, new):
        if proof or old_root != (new_root if old else root_hash([])):
            raise Bad("two checkpoints of one size have two root hashes")
        return
    path = list(proof) if old & (old - 1) else [old_root] + list(proof)
    if not path:
        raise Bad("the proof has too few hashes")
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise Bad("the proof has too many hashes")
        if node & 1 or node == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not node & 1 and node != 0:
                node, last = node >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise Bad("the proof has too few hashes")
    if (first, second) != (old_root, new_root):
        raise Bad("the older checkpoint is no prefix of the newer one")


# --- Keys, notes, checkpoints: c2sp.org/signed-note, c2sp.org/tlog-checkpoint --------------------

def unbase64(text, what):
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Bad("%s is not base64" % what) from None


def number(text, what):
    if not text.isascii() or not text.isdigit() or str(int(text)) != text:
        raise Bad("%s is not a number: %r" % (what, text))
    return int(text)


class Key:
    """A verifier key."""

    def __init__(self, text):
        parts = text.strip().split("+", 2)
        material = unbase64(parts[2], "the verifier key") if len(parts) == 3 else b""
        if len(material) != 33 or material[0] != 1:
            raise Bad("this is not a verifier key of type Ed25519: %r" % text.strip())
        self.text, self.name, self.public = text.strip(), parts[0], material[1:]
        self.id = hashlib.sha256(self.name.encode() + b"\n" + material).digest()[:4]
        if self.id.hex() != parts[1]:
            raise Bad("the id in the verifier key is not that of its key")


class Checkpoint:
    """A signed note, opened with a key."""

    def __init__(self, note, key, where):
        self.where = where
        text, blank, signatures = note.rpartition("\n\n")
        text += "\n"
        if not blank or not signatures.endswith("\n"):
            raise Bad("%s is not a signed note" % where)
        signed = False
        for line in signatures[:-1].split("\n"):
            parts = line.split(" ")
            if len(parts) != 3 or parts[0] != "\u2014":
                raise Bad("%s: a signature line is malformed" % where)
            signature = unbase64(parts[2], where + ": a signature")
            if parts[1] == key.name and signature[:4] == key.id:
                if not verify_ed25519(key.public, text.encode(), signature[4:]):
                    raise Bad("%s: the signature of %s does not hold" % (where, key.name))
                signed = True
        if not signed:
            raise Bad("%s is not signed by the key %s+%s" % (where, key.name, key.id.hex()))
        lines = text[:-1].split("\n")
        if len(lines) < 3 or "" in lines:
            raise Bad("%s is not a checkpoint" % where)
        if lines[0] != key.name:
            raise Bad("%s is the checkpoint of another log: %s" % (where, lines[0]))
        self.size = number(lines[1], where + ": the size")
        self.root = unbase64(lines[2], where + ": the root hash")


def read(path):
    with open(path, "rb") as file:
        return file.read()


def read_text(path):
    try:
        return read(path).decode()
    except UnicodeDecodeError:
        raise Bad("%s is not text" % path) from None


def read_key(argument):
    return Key(read_text(argument) if os.path.exists(argument) else argument)


# --- Tiles: c2sp.org/tlog-tiles ------------------------------------------------------------------

def tile_path(level, index):
    groups = "%03d" % (index % 1000)
    while index >= 1000:
        index //= 1000
        groups = "x%03d/" % (index % 1000) + groups
    return "tile/%s/%s" % (level, groups)


def read_tile(directory, level, index, width):
    """The bytes of a tile and its path; a partial one may have been replaced by the full one."""
    path = tile_path(level, index)
    partial = "%s.p/%d" % (path, width)
    if width < WIDTH and os.path.exists(os.path.join(directory, partial)):
        path = partial
    try:
        return read(os.path.join(directory, path)), path
    except FileNotFoundError:
        raise Bad("%s is missing" % (partial if width < WIDTH else path)) from None


def entries_of(data, path):
    entries, at = [], 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at:at + 2], "big")
        if end > len(data):
            raise Bad("%s, byte %d: the bundle is cut short" % (path, at))
        entries.append(data[at + 2:end])
        at = end
    return entries


def widths(count):
    for index in range((count + WIDTH - 1) // WIDTH):
        yield index, min(WIDTH, count - index * WIDTH)


def check_level(directory, level, hashes):
    """Compares the tiles of a level with what the level below gives."""
    for index, width in widths(len(hashes)):
        data, path = read_tile(directory, level, index, width)
        if len(data) % 32 or len(data) < 32 * width:
            raise Bad("%s does not have %d hashes" % (path, width))
        for place in range(width):
            if data[32 * place:32 * place + 32] != hashes[index * WIDTH + place]:
                raise Bad("%s, byte %d: not the hash that the level below gives"
                          % (path, 32 * place))


def leaves_of(directory, size, visit):
    """The leaf hashes of the entries, compared with level 0."""
    leaves = []
    for index, width in widths(size):
        data, path = read_tile(directory, "entries", index, width)
        entries = entries_of(data, path)
        is_partial = path.endswith(".p/%d" % width)
        if len(entries) != (width if is_partial else WIDTH):
            raise Bad("%s has %d entries, not %d" % (path, len(entries), width))
        for entry in entries[:width]:
            visit(len(leaves), entry)
            leaves.append(leaf_hash(entry))
    check_level(directory, 0, leaves)
    return leaves


def root_of_tiles(directory, leaves):
    """The root over all leaves; every tile above level 0 is compared on the way."""
    level, hashes = 0, leaves
    while len(hashes) >= WIDTH:
        whole = len(hashes) // WIDTH * WIDTH
        hashes = [root_hash(hashes[at:at + WIDTH]) for at in range(0, whole, WIDTH)]
        level += 1
        check_level(directory, level, hashes)
    return root_hash(leaves)


# --- The commands --------------------------------------------------------------------------------

def command_proof(entry, proof, vkey):
    key, data = read_key(vkey), read(entry)
    head, blank, note = read_text(proof).partition("\n\n")
    lines = head.split("\n")
    if not blank or lines[0] != "c2sp.org/tlog-proof@v1":
        raise Bad("%s is not a c2sp.org/tlog-proof@v1" % proof)
    lines = [line for line in lines[1:] if not line.startswith("extra ")]
    if not lines or not lines[0].startswith("index "):
        raise Bad("%s: there is no index" % proof)
    index = number(lines[0][6:], proof + ": the index")
    hashes = [unbase64(line, "%s: hash %d" % (proof, at)) for at, line in enumerate(lines[1:])]
    signed = Checkpoint(note, key, proof)
    verify_inclusion(leaf_hash(data), index, signed.size, hashes, signed.root)
    return "entry %d is in the log %s of %d entries" % (index, key.name, signed.size)


def command_log(directory, vkey, older=None):
    key = read_key(vkey)
    signed = Checkpoint(read_text(os.path.join(directory, "checkpoint")), key, "checkpoint")
    leaves = leaves_of(directory, signed.size, lambda index, entry: None)
    if root_of_tiles(directory, leaves) != signed.root:
        raise Bad("checkpoint: the entries do not give its root hash")
    said = "entries 0 to %d of the log %s give the signed root hash" % (signed.size - 1, key.name)
    if older is not None:
        old = Checkpoint(read_text(older), key, older)
        if old.size > signed.size or root_hash(leaves[:old.size]) != old.root:
            raise Bad("%s is no prefix of the log" % older)
        said += "; %s, of %d entries, is a prefix" % (older, old.size)
    return said


def command_consistency(old, new, proof, vkey):
    key = read_key(vkey)
    first, second = (Checkpoint(read_text(path), key, path) for path in (old, new))
    lines = read_text(proof).split()
    hashes = [unbase64(line, "%s: hash %d" % (proof, at)) for at, line in enumerate(lines)]
    verify_consistency(first.size, first.root, second.size, second.root, hashes)
    return "the log of %d entries is a prefix of that of %d" % (first.size, second.size)


COMMANDS = {
    "proof": (command_proof, (3, 3)),
    "log": (command_log, (2, 3)),
    "consistency": (command_consistency, (4, 4)),
}


def main(arguments):
    command, counts = COMMANDS.get(arguments[0] if arguments else "", (None, (0, 0)))
    if command is None or not counts[0] <= len(arguments) - 1 <= counts[1]:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    try:
        print("verified:", command(*arguments[1:]))
        return 0
    except Bad as bad:
        print("does not verify:", bad)
        return 1
    except OSError as error:
        print("cannot be checked:", error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
