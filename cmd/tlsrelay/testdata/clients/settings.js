// Enforced TLS settings as the Node library's users write them: read, change,
// read back, on behalf of a subuser, and the errors they branch on.
const assert = require('node:assert/strict');
const { Client } = require('@sendgrid/client');

const url = '/v3/user/settings/enforced_tls';

function clientWith(key) {
  const c = new Client();
  c.setApiKey(key); // first: it resets baseUrl
  c.setDefaultRequest('baseUrl', process.env.BASE_URL);
  return c;
}

async function fails(promise, code, message) {
  await assert.rejects(promise, err => {
    assert.equal(err.code, code);
    assert.equal(err.response.body.errors[0].message, message);
    return true;
  });
}

async function main() {
  const c = clientWith(process.env.SENDGRID_API_KEY);
  let [res, body] = await c.request({ method: 'PATCH', url, body: { require_tls: true, require_valid_cert: false, version: 1.2 } });
  assert.equal(res.statusCode, 200);
  assert.deepEqual(body, { require_tls: true, require_valid_cert: false, version: 1.2 });

  [res, body] = await c.request({ method: 'PATCH', url, body: { require_valid_cert: true } });
  assert.equal(body.version, 1.2, 'a PATCH without version keeps the stored one');

  [res, body] = await c.request({ method: 'GET', url });
  assert.deepEqual(body, { require_tls: true, require_valid_cert: true, version: 1.2 });

  const child = clientWith(process.env.SENDGRID_API_KEY);
  child.setImpersonateSubuser(process.env.SUBUSER);
  [res, body] = await child.request({ method: 'GET', url });
  assert.deepEqual(body, { require_tls: false, require_valid_cert: false, version: 1.1 }, "a subuser's settings are its own");

  [res, body] = await c.request({ method: 'GET', url: '/v3/scopes' });
  assert.ok(body.scopes.includes('mail.send'));

  await fails(c.request({ method: 'PATCH', url, body: { version: '1.2' } }), 400, 'version must be one of 1.1, 1.2, 1.3');
  await fails(clientWith('SG.bad').request({ method: 'GET', url }), 401,
    'The provided authorization grant is invalid, expired, or revoked');
  const stranger = clientWith(process.env.SENDGRID_API_KEY);
  stranger.setImpersonateSubuser('nobody-by-this-name');
  await fails(stranger.request({ method: 'GET', url }), 403, 'access forbidden');
  console.log('ok');
}

main().catch(err => { console.error(err); process.exitCode = 1; });
