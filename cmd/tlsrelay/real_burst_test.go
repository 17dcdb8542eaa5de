//go:build realclients

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"tlsrelay/relay/relaytest"
)

// burst is how many messages come at once: more than any of the servers takes
// over one connection, or takes connections from one address.
const burst = 30

// takesBurst sends many messages at once to one host and holds that each of
// them is told as delivered, and is in the maildir, without a wait.
func (r *rig) takesBurst(t *testing.T, receiver *relaytest.Receiver, dir string, h realHost) {
	t.Helper()
	c := r.login(t)
	defer c.Close()
	for n := range burst {
		r.handOver(t, c, fmt.Sprintf("burst-%d@%s", n, h.domain), &smtp.MailOptions{}, fmt.Sprintf("Subject: burst-%d\r\n\r\nHello.\r\n", n))
	}
	r.events(receiver, burst, func(e map[string]any) bool {
		return e["event"] == "delivered" && strings.HasPrefix(e["email"].(string), "burst-")
	})
	var missing []string
	for end := time.Now().Add(relaytest.Patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		got := map[string]int{}
		for _, m := range maildir(t, dir) {
			got[header(m, "Subject")]++
		}
		missing = nil
		for n := range burst {
			if subject := fmt.Sprintf("burst-%d", n); got[subject] != 1 {
				missing = append(missing, fmt.Sprintf("%d of %s", got[subject], subject))
			}
		}
		if len(missing) == 0 {
			return
		}
	}
	t.Errorf("of the messages that were delivered, these are in the maildir: %s", strings.Join(missing, ", "))
}

// Recipients that nobody is: unknownAlone each in a message of its own, more
// than Postfix takes before it slows down, and unknownTogether in one message.
// chasquid hangs up at the third error of a connection; Exim says "554 Too many
// nonmail commands", in clear below TLS, to the twelfth RSET of a session.
const (
	unknownAlone    = 15
	unknownTogether = 5
)

// asksForUnknown sends to recipients that the host refuses, and after each kind
// to one that it has.
func (r *rig) asksForUnknown(t *testing.T, receiver *relaytest.Receiver, dir string, h realHost) {
	t.Helper()
	known := "known@" + h.domain
	for n := range unknownAlone {
		r.submit("app@sender.test", fmt.Sprintf("unknown-%d@%s", n, h.domain))
	}
	r.submit("app@sender.test", known)
	var all []string
	for n := range unknownTogether {
		all = append(all, fmt.Sprintf("unknown-%d@%s", unknownAlone+n, h.domain))
	}
	r.submit("app@sender.test", append(all, known)...)
	r.events(receiver, unknownAlone+unknownTogether, func(e map[string]any) bool {
		return e["event"] == "bounce" && e["type"] == "bounce" && strings.HasPrefix(e["email"].(string), "unknown-")
	})
	r.events(receiver, 2, func(e map[string]any) bool { return e["event"] == "delivered" && e["email"] == known })
	for end := time.Now().Add(relaytest.Patience); ; time.Sleep(20 * time.Millisecond) {
		got := 0
		for _, m := range maildir(t, dir) {
			if strings.Contains(header(m, "To"), known) {
				got++
			}
		}
		if got == 2 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("%d messages for %s arrived, want 2", got, known)
			return
		}
	}
}
