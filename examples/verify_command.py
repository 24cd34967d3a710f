"""Verify the commands that kcat reads, without this project's library: cryptography is all it takes.

kcat -C -J -e -o beginning -b HOST:PORT -t unship.control | python verify_command.py trust.json
"""

import base64
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

trusted = [key for key in json.loads(Path(sys.argv[1]).read_text())["keys"].values() if "controller" in key["roles"]]
for line in sys.stdin:
    record = json.loads(line)
    headers = dict(zip(record["headers"][::2], record["headers"][1::2], strict=True))
    kind, value = b"application/vnd.unship.command+json", record["payload"].encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(value), value)
    for key in trusted:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(key["public"])).verify(
            base64.b64decode(headers["unship_sig"]), signed
        )
    command = json.loads(value)
    sys.stdout.write(f"good: {command['model']} is to serve {command['serve']}, epoch {command['epoch']}\n")
