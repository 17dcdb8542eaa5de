"""Submission with Python's smtplib and its e-mail package, which folds and
encodes a long X-SMTPAPI in its own way; and a bad key."""
import json
import os
import smtplib
import ssl
from email.message import EmailMessage

env = os.environ
context = ssl.create_default_context(cafile=env["CA_FILE"])
# The certificate is for the relay's name, and we connect to an address.
context.check_hostname = False


def connect(key):
    s = smtplib.SMTP(env["SMTP_HOST"], int(env["SMTP_PORT"]), timeout=30)
    s.starttls(context=context)
    s.login("apikey", key)
    return s


def message(subject, smtpapi):
    m = EmailMessage()
    m["From"], m["To"], m["Subject"] = env["FROM"], env["TO"], subject
    m["X-SMTPAPI"] = smtpapi
    m.set_content("Grüße\n.\n.leading dot\n" + "x" * 900 + "\n", cte="8bit")
    return m


args = {"unique_args": {"order": "42", "place": "Zürich", "long": "y" * 300}, "category": ["receipts"]}
with connect(env["SENDGRID_API_KEY"]) as s:
    for auth in "PLAIN", "LOGIN":
        assert auth in s.esmtp_features["auth"].split(), s.esmtp_features
    s.send_message(message("spaced", json.dumps(args)))
    s.send_message(message("dense", json.dumps(args, separators=(",", ":"))))
    s.send_message(message("raw", json.dumps(args, ensure_ascii=False)))
    # One session goes on after a refused recipient and a refused message.
    try:
        s.sendmail(env["FROM"], ["not an address"], b"Subject: x\r\n\r\nx\r\n")
        raise SystemExit("a recipient that is no address was taken")
    except smtplib.SMTPRecipientsRefused:
        pass
    try:
        s.send_message(message("bad", '{"to":["other@good.test"]}'))
        raise SystemExit("X-SMTPAPI with recipients was taken")
    except smtplib.SMTPDataError as e:
        assert e.smtp_code == 550 and e.smtp_error.startswith(b"5.6.0"), e
    s.send_message(message("last", "{}"))

try:
    connect("SG.wrong")
    raise SystemExit("a bad key was taken")
except smtplib.SMTPAuthenticationError as e:
    assert e.smtp_code == 535, e

print("ok")
