"""LUKS, version 1: headers, key slots, the anti-forensic splitter, and the ciphers over sectors."""
