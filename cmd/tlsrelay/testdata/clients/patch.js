// SendGrid's own sample for "Update Enforced TLS settings", unchanged but for
// the base URL.
const client = require('@sendgrid/client');
client.setApiKey(process.env.SENDGRID_API_KEY);
client.setDefaultRequest('baseUrl', process.env.BASE_URL);

const data = {
  "require_tls": true,
  "require_valid_cert": true,
  "version": 1.1
};

const request = {
  url: `/v3/user/settings/enforced_tls`,
  method: 'PATCH',
  body: data
}

client.request(request)
  .then(([response, body]) => {
    console.log(response.statusCode);
    console.log(JSON.stringify(response.body));
  })
  .catch(error => {
    console.error(error);
    process.exitCode = 1;
  });
