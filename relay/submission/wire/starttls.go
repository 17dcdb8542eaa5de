package wire

import (
	"context"
	"crypto/tls"
	"time"
)

// startTLS carries STARTTLS out: the handshake and all that follows is a new
// conversation with go-smtp, which knows nothing of this one.
func (c *Conn) startTLS(bare bool) {
	switch {
	case !bare:
		c.say("501 5.5.4 STARTTLS has no parameters")
	case c.tls != nil:
		c.say("503 5.5.1 TLS is active already")
	case c.config.TLS == nil:
		c.say("502 5.5.1 TLS is not available")
	case c.in.buffered() > 0:
		// Somebody in between may have added it (CVE-2011-0411).
		c.end("554 5.5.1 Nothing may follow STARTTLS before the handshake")
	default:
		c.say("220 2.0.0 Begin TLS negotiation now")
		c.flush()
		c.moved = true
		next := New(c.config, c.Socket, true)
		next.upgraded = true
		if !c.config.Adopt(next) {
			c.Socket.Close()
		}
	}
}

// handshakeTime bounds a handshake, which needs no human.
const handshakeTime = time.Minute

// handshake is made before anything is read. If it fails there is nothing to
// say: the client would read a reply in clear (RFC 3207 §4.1).
func (c *Conn) handshake() {
	if !c.wait() {
		c.gone = true
		c.Socket.Close()
		return
	}
	limit := min(handshakeTime, c.config.IdleTimeout)
	c.Socket.Bound(time.Now().Add(limit))
	err := c.tls.HandshakeContext(context.Background())
	c.proceed()
	if err != nil {
		if c.Socket.Farewell() == "" {
			c.config.Handshake(0)
		}
		c.gone = true
		c.Socket.Close()
		return
	}
	state := c.tls.ConnectionState()
	c.secured = tls.VersionName(state.Version) + ":" + tls.CipherSuiteName(state.CipherSuite)
	c.config.Handshake(state.Version)
}
