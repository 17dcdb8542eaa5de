"""A host of aiosmtpd that puts what it gets into a maildir.
receive.py MAILDIR ADDRESS PORT CHAIN NEWEST; see realHost for the last two."""
import asyncio
import os
import ssl
import sys
import uuid

from aiosmtpd.smtp import SMTP

maildir, address, port, chain, newest = sys.argv[1:]


class Keep:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("unknown"):
            return "550 5.1.1 Nobody"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server, session, envelope):
        tls = session.ssl["ssl_object"].version() if session.ssl else "clear"
        name = uuid.uuid4().hex
        with open(os.path.join(maildir, "tmp", name), "wb") as f:
            f.write(f"Received: from {session.host_name} by aiosmtpd ({tls})\n".encode())
            f.write(envelope.original_content.replace(b"\r\n", b"\n"))
        os.rename(os.path.join(maildir, "tmp", name), os.path.join(maildir, "new", name))
        return "250 2.0.0 kept"


def context():
    if not chain:
        return None
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(chain)
    if newest:
        c.maximum_version = getattr(ssl.TLSVersion, "TLSv" + newest.replace(".", "_"))
    if newest == "1.1":
        # Debian's OpenSSL needs to be talked into it.
        c.minimum_version = ssl.TLSVersion.TLSv1
        c.set_ciphers("ALL:@SECLEVEL=0")
    return c


async def main():
    tls = context()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Keep(), hostname="aiosmtpd.test", tls_context=tls, enable_SMTPUTF8=True, loop=loop),
        address, int(port))
    await server.serve_forever()


asyncio.run(main())
