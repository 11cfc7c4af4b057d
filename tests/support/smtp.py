"""A mail server for tests: takes mails and writes what it got.

Usage: smtp.py PORT MODE OUT [CERT KEY]
MODE: plain, tls (from the first byte), starttls (required), auth (starttls, user and password).
Prints its port. OUT gets a JSON file for each mail and, in `commands`, a line for each MAIL and AUTH.
Recipients that begin with `unknown` are refused.
"""

import asyncio
import email
import email.policy
import json
import os
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

port, mode, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def note(line):
    with open(os.path.join(out, "commands"), "a") as file:
        file.write(line + "\n")


class Handler:
    async def handle_MAIL(self, server, session, envelope, address, options):
        note(f"MAIL {address} tls={session.ssl is not None}")
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("unknown"):
            return "550 no such user \x1b[2J here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        raw = envelope.original_content
        message = email.message_from_bytes(raw, policy=email.policy.default)
        body = message.get_body(("plain",))
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "headers": [[key, str(value)] for key, value in message.items()],
            "raw_head": raw.split(b"\r\n\r\n")[0].decode("ascii"),
            "charset": body.get_content_charset(),
            "body": body.get_content(),
            "defects": [str(defect) for defect in message.defects],
            "attachments": [
                {
                    "name": part.get_filename(),
                    "type": part.get_content_type(),
                    "text": part.get_payload(decode=True).decode("utf-8"),
                }
                for part in message.iter_attachments()
            ],
        }
        number = len([name for name in os.listdir(out) if name.endswith(".json")])
        path = os.path.join(out, f"{number:04}.json")
        with open(path + ".new", "w") as file:
            json.dump(mail, file)
        os.rename(path + ".new", path)
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    note(f"AUTH tls={session.ssl is not None}")
    good = data.login == b"fim" and data.password == b"correct horse"
    return AuthResult(success=good, handled=good)


async def main():
    context = None
    if len(sys.argv) > 4:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[4], sys.argv[5])
    options = {}
    if mode in ("starttls", "auth"):
        options.update(tls_context=context, require_starttls=True)
    if mode == "auth":
        options.update(authenticator=authenticate, auth_required=True)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Handler(), hostname="mx.test", **options),
        "127.0.0.1",
        port,
        ssl=context if mode == "tls" else None,
        reuse_address=True,
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
