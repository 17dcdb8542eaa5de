// Verifies posted batches with SendGrid's own helper. Standard input: one JSON
// object a line, {publicKey, signature, timestamp, body} with body in base64.
const { EventWebhook } = require('@sendgrid/eventwebhook');

const ew = new EventWebhook();
const lines = require('node:fs').readFileSync(0, 'utf8').split('\n').filter(Boolean);
let bad = 0;
for (const line of lines) {
  const { publicKey, signature, timestamp, body } = JSON.parse(line);
  const raw = Buffer.from(body, 'base64');
  const ok = ew.verifySignature(ew.convertPublicKeyToECDSA(publicKey), raw, signature, timestamp);
  const forged = ew.verifySignature(ew.convertPublicKeyToECDSA(publicKey), raw + ' ', signature, timestamp);
  if (!ok || forged) bad++;
}
console.log(`${lines.length} verified, ${bad} bad`);
if (bad || lines.length === 0) process.exitCode = 1;
