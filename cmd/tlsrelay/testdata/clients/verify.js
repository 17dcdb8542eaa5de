// Verifies posted batches with SendGrid's own helper, as a consumer behind
// Node's http module does. Standard input: one JSON object a line,
// {publicKey, headers, body} with body in base64.
const { EventWebhook, EventWebhookHeader } = require('@sendgrid/eventwebhook');

const ew = new EventWebhook();
const lines = require('node:fs').readFileSync(0, 'utf8').split('\n').filter(Boolean);
let bad = 0;
for (const line of lines) {
  const { publicKey, headers, body } = JSON.parse(line);
  const signature = headers[EventWebhookHeader.SIGNATURE().toLowerCase()];
  const timestamp = headers[EventWebhookHeader.TIMESTAMP().toLowerCase()];
  const raw = Buffer.from(body, 'base64');
  const key = ew.convertPublicKeyToECDSA(publicKey);
  const ok = ew.verifySignature(key, raw, signature, timestamp);
  const forged = ew.verifySignature(key, raw + ' ', signature, timestamp);
  JSON.parse(raw); // throws on what is not JSON
  if (!ok || forged) bad++;
}
console.log(`${lines.length} verified, ${bad} bad`);
if (bad || lines.length === 0) process.exitCode = 1;
