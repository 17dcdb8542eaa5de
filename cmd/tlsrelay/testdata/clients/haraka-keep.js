// A queue of Haraka that is a maildir, and recipients that nobody is.
const fs = require('node:fs');
const path = require('node:path');

exports.hook_rcpt = function (next, connection, [recipient]) {
  if (recipient.user.startsWith('unknown')) return next(DENY, 'Nobody');
  return next();
};

exports.hook_queue = function (next, connection) {
  const maildir = this.config.get('maildir');
  const name = connection.transaction.uuid;
  const socket = connection.client.targetsocket;
  const out = fs.createWriteStream(path.join(maildir, 'tmp', name));
  // Haraka's own Received tells the cipher, and not the version.
  out.write(`Received: by the queue (${socket.getProtocol ? socket.getProtocol() : 'clear'})\n`);
  out.once('close', () => {
    fs.renameSync(path.join(maildir, 'tmp', name), path.join(maildir, 'new', name));
    next(OK, 'kept');
  });
  connection.transaction.message_stream.pipe(out, { line_endings: '\n' });
};
