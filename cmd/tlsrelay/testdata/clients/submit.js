// Submission with nodemailer: X-SMTPAPI in both forms it can take on the wire,
// and a bad key.
const assert = require('node:assert/strict');
const nodemailer = require('nodemailer');

const { SMTP_HOST: host, SMTP_PORT: port, SENDGRID_API_KEY: pass, CA: ca, FROM: from, TO: to } = process.env;

function transport(key) {
  return nodemailer.createTransport({
    host, port: Number(port), secure: false, requireTLS: true,
    tls: { ca, servername: process.env.SMTP_NAME }, auth: { user: 'apikey', pass: key },
  });
}

async function main() {
  const t = transport(pass);
  const api = JSON.stringify({ unique_args: { order: '42', place: 'Zürich' }, category: ['receipts'] });
  const prepared = { prepared: true, value: api.replace(/[\u0080-\uffff]/g, c => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0')) };
  for (const [subject, value] of [['encoded', api], ['prepared', prepared]]) {
    const info = await t.sendMail({ from, to, subject, text: 'Grüße', headers: { 'X-SMTPAPI': value } });
    assert.match(info.response, /^250 2\.0\.0 Ok: queued as [A-Za-z0-9_-]{22}$/);
  }
  await assert.rejects(transport('SG.wrong').sendMail({ from, to, subject: 'x', text: 'x' }), err => {
    assert.equal(err.code, 'EAUTH');
    assert.equal(err.responseCode, 535);
    return true;
  });
  console.log('ok');
}

main().catch(err => { console.error(err); process.exitCode = 1; });
