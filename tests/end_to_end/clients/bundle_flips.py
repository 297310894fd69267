"""Every change to an evidence bundle is found, by the checker that goes with it.

Usage: bundle_flips.py VERIFY_PY BUNDLE_DIR

VERIFY_PY is the checker as it was written, not the copy in the bundle. Prints one JSON object: how many
changes were tried, and those that passed or were found in another file.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import sys

STRIDE_OF_TEXTS = 16
STRIDE_OF_CONTENT = 97
TEXTS = {"VERIFY.md", "verify.py"}


def load(path):
    spec = importlib.util.spec_from_file_location("bundle_verify", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    verify, directory = load(sys.argv[1]), sys.argv[2]
    arguments = argparse.Namespace(directory=directory, log_key=None, root=None, manifest_sha256=None)
    sys.stdout, told = open(os.devnull, "w", encoding="utf-8"), sys.stdout
    missed, tried = [], 0

    def path(name):
        return os.path.join(directory, name)

    def read(name):
        with open(path(name), "rb") as file:
            return file.read()

    def write(name, data):
        with open(path(name), "wb") as file:
            file.write(data)

    def expect(what, names):
        nonlocal tried
        tried += 1
        try:
            verify.check(arguments)
        except verify.Bad as bad:
            if names is not None and not str(bad).startswith(tuple(name + ":" for name in names)):
                missed.append(f"{what}: {bad}")
        except (KeyError, TypeError, ValueError, AttributeError, OSError):
            if names is not None:
                missed.append(f"{what}: found, and not where")
        else:
            missed.append(f"{what}: passed")

    def flip(data, at):
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    verify.check(arguments)
    names = sorted(set(os.listdir(directory)) - {"MANIFEST.json"})
    manifest = read("MANIFEST.json")
    # Every byte, in every file; the texts in a sample.
    for name in names:
        data = read(name)
        for at in range(0, len(data), STRIDE_OF_TEXTS if name in TEXTS else 1):
            write(name, flip(data, at))
            expect(f"{name} byte {at}", [name])
        for what, changed in (("shorter", data[:-1]), ("longer", data + b"\n"), ("empty", b"")):
            if changed != data:
                write(name, changed)
                expect(f"{name} {what}", [name])
        write(name, data)
    for at in range(len(manifest)):
        write("MANIFEST.json", flip(manifest, at))
        expect(f"MANIFEST.json byte {at}", None)
    write("MANIFEST.json", manifest)
    # The manifest made to agree: then the content itself must not.
    for name in names:
        if name in TEXTS:
            continue
        data = read(name)
        for at in range(0, len(data), STRIDE_OF_CONTENT):
            changed = flip(data, at)
            write(name, changed)
            fields = json.loads(manifest)
            fields["files"][name] = hashlib.sha256(changed).hexdigest()
            text = json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
            write("MANIFEST.json", text.encode())
            expect(f"{name} byte {at}, manifest and all", None)
        write(name, data)
        write("MANIFEST.json", manifest)
    # Removed, added, swapped.
    for name in names:
        os.rename(path(name), path("MANIFEST.json") + ".away")
        os.rename(path("MANIFEST.json") + ".away", directory.rstrip("/") + ".away")
        expect(f"{name} removed", [name])
        os.rename(directory.rstrip("/") + ".away", path(name))
    write("more.bin", b"more")
    expect("more.bin added", ["more.bin"])
    os.remove(path("more.bin"))
    for one, other in zip(names, names[1:]):
        first, second = read(one), read(other)
        write(one, second)
        write(other, first)
        expect(f"{one} and {other} swapped", [one, other])
        write(one, first)
        write(other, second)
    verify.check(arguments)
    sys.stdout = told
    print(json.dumps({"tried": tried, "missed": missed[:10]}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
