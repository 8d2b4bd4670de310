"""An SMTP server that wants a login and says what it got.

Arguments: certificate and key of STARTTLS (or "" for none), user, password.
Writes one JSON object a line: {"event": "listening", "port": …}, then {"event": "mail", "from": …, "to": […], "data": …}.
It refuses mail to an address that begins with "nobody".
"""

import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

CERTIFICATE, KEY, USER, PASSWORD = sys.argv[1:5]


def say(event, **more):
    sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
    sys.stdout.flush()


class Handler:
    async def handle_RCPT(self, _server, _session, envelope, address, _options):
        if address.startswith("nobody"):
            return "550 there is nobody of this name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server, _session, envelope):
        data = envelope.content.decode("utf-8", "replace")
        say("mail", **{"from": envelope.mail_from, "to": envelope.rcpt_tos, "data": data})
        return "250 taken as number 7"


def authenticate(_server, _session, _envelope, _mechanism, login):
    is_known = isinstance(login, LoginPassword) and login == LoginPassword(USER.encode(), PASSWORD.encode())
    return AuthResult(success=is_known, handled=False)


def smtp():
    context = None
    if CERTIFICATE:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE, KEY)
    return SMTP(
        Handler(),
        tls_context=context,
        require_starttls=context is not None,
        auth_required=True,
        auth_require_tls=context is not None,
        authenticator=authenticate,
        enable_SMTPUTF8=True,
    )


async def serve():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(smtp, "127.0.0.1", 0)
    say("listening", port=server.sockets[0].getsockname()[1])
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


asyncio.run(serve())
