package deliver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/relaytest"
)

// TestOutOfStep: what a host says too much is never taken for the answer to a
// command: mail that it refuses is not taken for delivered, nor a demand for
// violated.
func TestOutOfStep(t *testing.T) {
	for _, ehlo := range []string{
		"250-mx1\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 SIZE\r\n250 HELP\r\n",
		"250-mx1\r\n250-PIPELINING\r\n250 SIZE\r\n250 HELP\r\n",
		"250-mx1\r\n250-CHUNKING\r\n250 SIZE\r\n250 HELP\r\n",
		"250-mx1\r\n250 SIZE\r\n250 HELP\r\n",
		"220 mx1 once more\r\n",
	} {
		w := relaytest.Start(t)
		inTLS := w.Host(t, "mx1.example.test", relaytest.Script{
			EHLOInTLS: relaytest.Reply{Raw: ehlo},
			End:       relaytest.Reply{Code: 554, Text: "5.7.1 spam"},
		})
		second := w.Host(t, "mx2.example.test")
		r := engine(t, w, routeTo(inTLS, second)).Deliver(context.Background(), jobTo(t, modeT))
		// An EHLO reply with a code of 220 is out of step for good; where there is one
		// reply too many, the next connection is listened to until it is silent.
		want, status := "bounce", "5.7.1"
		if strings.HasPrefix(ehlo, "220") {
			want, status = "tls", ""
		}
		if how(r) != want || failureOf(r).Status != status {
			t.Errorf("%q: %s, %d at the second host: %+v", ehlo, how(r), second.Accepted(), failureOf(r))
		}
	}
	for _, s := range []policy.Sender{modeO, modeT} {
		addr := rawHost(t, func(c net.Conn) {
			in := bufio.NewReader(c)
			io.WriteString(c, "220 proxy\r\n220 mx1 ESMTP\r\n")
			for line, err := in.ReadString('\n'); err == nil; line, err = in.ReadString('\n') {
				answer := "250 ok\r\n"
				if strings.HasPrefix(line, "EHLO") {
					answer = "250-mx1\r\n250 STARTTLS\r\n"
				}
				io.WriteString(c, answer)
			}
		})
		route := routeTo()
		route.Hosts = append(route.Hosts, hostAt("mx1.example.test", addr))
		r := engine(t, relaytest.Start(t), route).Deliver(context.Background(), jobTo(t, s))
		if how(r) != "defer" || r.Attempt.Ruling != policy.Unreached {
			t.Errorf("two greetings: %s, %s", how(r), r.Attempt.Ruling)
		}
	}
}

// TestClosingInTheEnvelope: a host that says 421 before it has taken the message
// has not taken it, however much of it was sent by then: the next host gets it.
// Whoever it was not asked about for that is asked about at once.
func TestClosingInTheEnvelope(t *testing.T) {
	for way, keywords := range ways {
		w := relaytest.Start(t)
		closing := relaytest.Reply{Code: 421, Text: "4.3.2 shutting down"}
		first := w.Host(t, "mx1.example.test", relaytest.Script{Keywords: keywords, Rcpts: map[string]relaytest.Reply{"bob@example.test": closing}})
		second := w.Host(t, "mx2.example.test")
		r := engine(t, w, routeTo(first, second)).Deliver(context.Background(), jobTo(t, modeT, "bob@example.test", "carol@example.test"))
		if how(r) != "tls" || r.Outcomes[1].Failure != nil || first.Accepted() != 1 || second.Accepted() != 1 ||
			first.Messages()[0].To[0].Address != "carol@example.test" || second.Messages()[0].To[0].Address != "bob@example.test" {
			t.Errorf("%s, RCPT: %s, %d at the second host: %+v", way, how(r), second.Accepted(), failureOf(r))
		}

		w = relaytest.Start(t)
		host := w.Host(t, "mx1.example.test", relaytest.Script{
			Keywords: keywords, Rset: closing,
			Rcpts: map[string]relaytest.Reply{"bad@example.test": {Code: 550, Text: "5.1.1 who"}},
		})
		e := engine(t, w, routeTo(host))
		e.Deliver(context.Background(), jobTo(t, modeT, "bad@example.test"))
		if r := e.Deliver(context.Background(), jobTo(t, modeT, "good@example.test")); how(r) != "tls" || host.Accepted() != 1 {
			t.Errorf("%s, RSET: %s, %d taken: %+v", way, how(r), host.Accepted(), failureOf(r))
		}
	}
	for _, way := range []string{"pipelined-DATA", "stepwise-DATA"} {
		w := relaytest.Start(t)
		host := w.Host(t, "mx1.example.test", relaytest.Script{Keywords: ways[way], Data: relaytest.Reply{Code: 421, Text: "4.3.2 shutting down", Times: 1}})
		e := engine(t, w, routeTo(host), func(o *Options) { o.MaxRecipientsPerTransaction = 1 })
		e.Deliver(context.Background(), jobTo(t, modeT, "a@example.test", "b@example.test"))
		for _, s := range host.Sessions()[:1] {
			if n := len(s.Commands); n > 0 && strings.HasPrefix(s.Commands[n-1].Line, "MAIL") {
				t.Errorf("%s: went on after 421 to DATA: %v", way, s.Commands)
			}
		}
	}
}

// TestOneTooMany: however a host says that a recipient is one too many, the next
// transaction asks again, and asks no more at a time than were taken.
func TestOneTooMany(t *testing.T) {
	for _, words := range []string{
		"452 4.5.3 Too many recipients", "452 Too many recipients", "450 4.5.3 Too many recipients",
		"552 Too many recipients", "552 5.5.3 Too many recipients",
	} {
		const most, all = 10, 60
		var asked, got atomic.Int64
		addr := rawHost(t, func(c net.Conn) {
			n := 0
			playHost(c, "SIZE", func(in *bufio.Reader, line string) (bool, bool) {
				switch {
				case strings.HasPrefix(line, "MAIL"):
					n = 0
				case strings.HasPrefix(line, "RCPT"):
					asked.Add(1)
					if n++; n > most {
						io.WriteString(c, words+"\r\n")
						return true, true
					}
				case strings.HasPrefix(line, "DATA"):
					io.WriteString(c, "354 go\r\n")
					for err := error(nil); line != ".\r\n" && err == nil; {
						line, err = in.ReadString('\n')
					}
					got.Add(int64(min(n, most)))
					io.WriteString(c, "250 taken\r\n")
					return true, true
				}
				return false, true
			})
		})
		route := routeTo()
		route.Hosts = append(route.Hosts, hostAt("mx1.example.test", addr))
		var to []string
		for i := range all {
			to = append(to, fmt.Sprintf("u%d@example.test", i))
		}
		r := engine(t, relaytest.Start(t), route).Deliver(context.Background(), jobTo(t, modeO, to...))
		for _, o := range r.Outcomes {
			if o.Failure != nil {
				t.Fatalf("%s: %+v", words, o.Failure)
			}
		}
		if got.Load() != all || asked.Load() > 2*all {
			t.Errorf("%s: %d recipients taken, after %d RCPTs", words, got.Load(), asked.Load())
		}
	}
}

// TestOneFullMailbox: one recipient too many is a limit; one whose mailbox is full
// is not, for whoever comes after it was taken.
func TestOneFullMailbox(t *testing.T) {
	var transactions atomic.Int64
	addr := rawHost(t, func(c net.Conn) {
		playHost(c, "SIZE", func(in *bufio.Reader, line string) (bool, bool) {
			switch {
			case strings.HasPrefix(line, "RCPT TO:<full"):
				io.WriteString(c, "452 over quota\r\n")
				return true, true
			case strings.HasPrefix(line, "DATA"):
				transactions.Add(1)
				io.WriteString(c, "354 go\r\n")
				for err := error(nil); line != ".\r\n" && err == nil; {
					line, err = in.ReadString('\n')
				}
				io.WriteString(c, "250 taken\r\n")
				return true, true
			}
			return false, true
		})
	})
	route := routeTo()
	route.Hosts = append(route.Hosts, hostAt("mx1.example.test", addr))
	e := engine(t, relaytest.Start(t), route)
	e.Deliver(context.Background(), jobTo(t, modeO, "a@example.test", "full@example.test", "b@example.test"))
	before := transactions.Load()
	var to []string
	for i := range 60 {
		to = append(to, fmt.Sprintf("u%d@example.test", i))
	}
	e.Deliver(context.Background(), jobTo(t, modeO, to...))
	if n := transactions.Load() - before; n != 1 {
		t.Errorf("%d transactions for the next message", n)
	}
}

// TestWhatAsksForTLS: a host that wants AUTH, or has TLS in an address, does not
// want STARTTLS.
func TestWhatAsksForTLS(t *testing.T) {
	for _, c := range []struct {
		reply relaytest.Reply
		class relay.Class
	}{
		{relaytest.Reply{Code: 530, Text: "5.7.0 Must issue a STARTTLS command first"}, relay.Temporary},
		{relaytest.Reply{Code: 550, Text: "5.7.1 Use TLS, please"}, relay.Temporary},
		{relaytest.Reply{Code: 550, Text: "5.7.10 TLSv1.2 or higher required"}, relay.Temporary},
		{relaytest.Reply{Code: 530, Text: "5.7.0 Authentication required"}, relay.Permanent},
		{relaytest.Reply{Code: 550, Text: "5.7.1 <bob@tls-fans.test>: access denied"}, relay.Permanent},
		{relaytest.Reply{Code: 550, Text: "5.7.1 subtlsomething"}, relay.Permanent},
	} {
		for _, s := range []relaytest.Script{{NoTLS: true, Mail: c.reply}, {NoTLS: true, Rcpt: c.reply}} {
			w := relaytest.Start(t)
			r := engine(t, w, routeTo(w.Host(t, "mx1.example.test", s))).Deliver(context.Background(), jobTo(t, modeO))
			if f := failureOf(r); f.Class != c.class {
				t.Errorf("%s: %+v", c.reply.Text, f)
			}
		}
	}
}

// TestBackupHost: a backup that was used while the primary was away is not used
// for much longer than that.
func TestBackupHost(t *testing.T) {
	w := relaytest.Start(t)
	primary := w.Host(t, "mx1.example.test", relaytest.Script{Greeting: relaytest.Reply{Code: 421, Text: "restarting"}}, relaytest.Script{})
	backup := w.Host(t, "mx2.example.test")
	route := routeTo(primary, backup)
	route.Hosts[0].Preference, route.Hosts[1].Preference = 10, 20
	e := engine(t, w, route)
	for range 2 {
		deliverOne(t, e, modeT, "tls")
	}
	if backup.Accepted() != 2 || backup.Connections() != 1 {
		t.Fatalf("%d at the backup over %d connections", backup.Accepted(), backup.Connections())
	}
	for _, s := range e.pool.Idle() {
		s.InTurn = s.InTurn.Add(-betterGone)
	}
	deliverOne(t, e, modeT, "tls")
	if primary.Accepted() != 1 {
		t.Errorf("the primary is back and got nothing; the backup %d", backup.Accepted())
	}
}
