package wire

import (
	"context"
	"crypto/tls"
	"time"
)

// startTLS carries out STARTTLS. A new conversation with go-smtp begins with the
// handshake, and knows nothing of this one. bare: the command has no parameters.
func (c *Conn) startTLS(bare bool) {
	switch {
	case !bare:
		c.say("501 5.5.4 STARTTLS has no parameters")
	case c.tls != nil:
		c.say("503 5.5.1 TLS is active already")
	case c.config.TLS == nil:
		c.say("502 5.5.1 TLS is not available")
	case c.in.buffered() > 0:
		// An attacker in between may have added it (CVE-2011-0411).
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

// handshakeTime is the longest handshake: no human takes part in it.
const handshakeTime = time.Minute

// handshake comes before the first read. If it fails, there is no reply: it would
// go out in clear (RFC 3207 §4.1).
func (c *Conn) handshake() {
	if !c.wait() {
		c.gone = true
		c.Socket.Close()
		return
	}
	limit := min(handshakeTime, c.config.IdleTimeout)
	c.Socket.EndReads(time.Now().Add(limit))
	err := c.tls.HandshakeContext(context.Background())
	c.proceed()
	if err != nil {
		if c.Socket.Parting() == "" {
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
