"""What is wrong with files and certificates, in the words of GnuTLS and of QEMU."""

from typing import Final

NO_HEADER: Final = "Base64 unexpected header error."
NOT_BASE64: Final = "Base64 decoding error."
NOT_DER: Final = "ASN1 parser: Error in TAG."
UNREADABLE: Final = "Error while reading file."

UNKNOWN_ISSUER: Final = "The certificate hasn't got a known issuer"
NOT_TRUSTED: Final = "The certificate is not trusted"
REVOKED: Final = "The certificate has been revoked"
INSECURE: Final = "The certificate uses an insecure algorithm"
