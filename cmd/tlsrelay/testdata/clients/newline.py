"""Submission with smtplib of bytes with bare LF, which it sends as they are
but for a second dot before a dot."""
import os
import smtplib
import ssl

env = os.environ
context = ssl.create_default_context(cafile=env["CA_FILE"])
# The certificate is for the relay's name, and we connect to an address.
context.check_hostname = False

text = b"From: <%b>\nSubject: bytes\n\nHello.\n.\nMAIL FROM:<x@sender.test>\n..\nBye.\n"
with smtplib.SMTP(env["SMTP_HOST"], int(env["SMTP_PORT"]), timeout=30) as s:
    s.starttls(context=context)
    s.login("apikey", env["SENDGRID_API_KEY"])
    s.sendmail(env["FROM"], [env["TO"]], text % env["FROM"].encode())
print("ok")
