// A host of smtp-server that puts what it gets into a maildir.
// receive.js MAILDIR ADDRESS PORT CHAIN NEWEST; see realHost for the last two.
const fs = require('node:fs');
const path = require('node:path');
const { randomUUID } = require('node:crypto');
const { SMTPServer } = require('smtp-server');

const [maildir, address, port, chain, newest] = process.argv.slice(2);

function keep(stream, session, done) {
  const chunks = [];
  stream.on('data', c => chunks.push(c));
  stream.on('error', done);
  stream.on('end', () => {
    const received = `Received: from ${session.hostNameAppearsAs} by smtp-server (${session.protocol || 'clear'})\n`;
    const text = received + Buffer.concat(chunks).toString('latin1').replace(/\r\n/g, '\n');
    const name = randomUUID();
    fs.writeFileSync(path.join(maildir, 'tmp', name), text, 'latin1');
    fs.renameSync(path.join(maildir, 'tmp', name), path.join(maildir, 'new', name));
    done(null, 'kept');
  });
}

// session.tlsOptions names the cipher's version, not the connection's.
function note(socket, session, done) {
  session.protocol = socket.getProtocol();
  done();
}

function recipient({ address }, session, done) {
  if (!address.startsWith('unknown')) return done();
  return done(Object.assign(new Error('Nobody'), { responseCode: 550 }));
}

const options = {
  name: 'smtp-server.test', onSecure: note, onRcptTo: recipient, onData: keep, authOptional: true, disableReverseLookup: true,
  disabledCommands: chain ? ['AUTH'] : ['AUTH', 'STARTTLS'],
};
if (chain) options.cert = options.key = fs.readFileSync(chain);
if (newest) options.maxVersion = 'TLSv' + newest;
// OpenSSL needs to be talked into it.
if (newest === '1.1') Object.assign(options, { minVersion: 'TLSv1', ciphers: 'ALL:@SECLEVEL=0' });

const server = new SMTPServer(options);
server.on('error', err => console.error(err.message)); // of one connection
server.listen(Number(port), address);
