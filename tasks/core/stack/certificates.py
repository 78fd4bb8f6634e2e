"""What of a file of certificates is public."""

from __future__ import annotations

import re

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def public_certificates(content: bytes) -> bytes:
    """Give the certificates of a file, in PEM or DER, without what else is in it: keys, comments, attributes; b"" where there are none."""
    try:
        return x509.load_der_x509_certificate(content).public_bytes(Encoding.DER)
    except ValueError:
        pass
    found = []
    for block in _BLOCK.findall(content):
        try:
            found.append(x509.load_pem_x509_certificate(block).public_bytes(Encoding.PEM))
        except ValueError:
            continue
    return b"".join(found)
