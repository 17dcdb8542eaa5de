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
