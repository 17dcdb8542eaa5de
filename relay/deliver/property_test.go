package deliver

import (
	"context"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"tlsrelay/policy"
	"tlsrelay/relay/relaytest"
)

// anyScript draws a host that does something odd on its way to MAIL, and takes
// every message that comes so far.
func anyScript(t *rapid.T, n int) relaytest.Script {
	reply := func(codes ...int) relaytest.Reply {
		return relaytest.Reply{Code: rapid.SampledFrom(codes).Draw(t, fmt.Sprint("code ", n)), Text: "said"}
	}
	var s relaytest.Script
	switch rapid.SampledFrom([]string{"", "", "tls", "tls", "cert", "cert", "version", "greeting", "ehlo", "none", "masked", "refuse", "inject", "second", "old", "ticket", "ticket"}).Draw(t, fmt.Sprint("oddity ", n)) {
	case "greeting":
		s.Greeting = reply(421, 450, 554)
	case "ehlo":
		s.EHLO = reply(421, 450, 500, 501, 502, 503, 504, 550)
	case "none":
		s.NoTLS = true
	case "masked":
		s.StartTLSAs = "XXXXXXXA"
	case "refuse":
		s.StartTLS = reply(421, 454, 500, 530, 250, 354)
	case "inject":
		s.Inject = "250 ok\r\n"
	case "second":
		s.EHLOInTLS = reply(421, 451, 500, 550)
	case "tls":
		s.TLS = rapid.SampledFrom([]relaytest.TLS{
			{Do: relaytest.Close}, {Do: relaytest.Reset}, {Garbage: "500 what?\r\n"}, {Alert: 40}, {Alert: 70}, {Alert: 80}, {Alert: 112},
			{Alert: 112, WithSNI: true}, {Alert: 40, HelloOver: 1000}, {Downgrade: true}, {ClientCert: true}, {ClientCert: true, MaxVersion: 0x0303},
		}).Draw(t, fmt.Sprint("handshake ", n))
	case "cert":
		c := rapid.SampledFrom([]relaytest.Cert{
			{SelfSigned: true}, {UnknownCA: true}, {Expired: true}, {NotYetValid: true}, {WrongUsage: true}, {MissingIntermediate: true}, {Unparseable: true},
		}).Draw(t, fmt.Sprint("certificate ", n))
		c.Names = []string{fmt.Sprintf("mx%d.example.test", n)}
		s.TLS.Cert = &c
	case "old": // and says so in its own way
		s.TLS = rapid.SampledFrom([]relaytest.TLS{{Do: relaytest.Close}, {Do: relaytest.Reset}, {Alert: 40}, {Alert: 80}}).Draw(t, fmt.Sprint("refusal ", n))
		s.TLS.MaxVersion = rapid.Uint16Range(0x0301, 0x0303).Draw(t, fmt.Sprint("version ", n))
		s.TLS.VersionOver = s.TLS.MaxVersion
	case "ticket": // resumed sessions break
		s.TLS.MaxVersion = rapid.Uint16Range(0x0303, 0x0304).Draw(t, fmt.Sprint("version ", n))
		broken := rapid.SampledFrom([]relaytest.Reply{{Do: relaytest.Close}, {Do: relaytest.Reset}, {Code: 421}, {Code: 554}}).Draw(t, fmt.Sprint("break ", n))
		if rapid.Bool().Draw(t, fmt.Sprint("at MAIL ", n)) {
			s.Resumed = &relaytest.Script{Mail: broken}
		} else {
			s.Resumed = &relaytest.Script{EHLOInTLS: broken}
		}
	case "version":
		s.TLS.MaxVersion = rapid.Uint16Range(0x0301, 0x0304).Draw(t, fmt.Sprint("version ", n))
	}
	return s
}

// TestProperties holds three properties against hosts
// that do anything: a demand never lets MAIL go in clear; nothing is blocked
// while some host might comply; and relaxing a demand never turns a delivery
// into a failure.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, err := relaytest.NewWorld()
		if err != nil {
			rt.Fatal(err)
		}
		defer w.Close()
		scripts := make([]relaytest.Script, rapid.IntRange(1, 3).Draw(rt, "hosts"))
		for i := range scripts {
			scripts[i] = anyScript(rt, i+1)
		}
		least := policy.Version(rapid.Uint16Range(0x0302, 0x0304).Draw(rt, "floor"))
		delivered := make(map[string]bool)
		for name, s := range map[string]policy.Sender{
			"O": modeO, "T": floor(least), "V": {Account: policy.Settings{RequireValidCert: true, MinVersion: least}},
		} {
			delivered[name] = tryProperties(rt, w, scripts, s)
		}
		if delivered["V"] && !delivered["T"] || delivered["T"] && !delivered["O"] {
			rt.Fatalf("a looser demand lost a delivery: %v", delivered)
		}
	})
}

// tryProperties delivers under one set of demands and checks the first two
// properties.
func tryProperties(rt *rapid.T, w *relaytest.World, scripts []relaytest.Script, s policy.Sender) bool {
	var hosts []*relaytest.Host
	for i, script := range scripts {
		h, err := w.AddHost(fmt.Sprintf("mx%d.example.test", i+1), script)
		if err != nil {
			rt.Fatal(err)
		}
		defer h.Close()
		hosts = append(hosts, h)
	}
	e := New(Options{Roots: w.CA.Pool()}, router{route: routeTo(hosts...)}, nil, nil)
	defer e.pool.Close()
	r := e.Deliver(context.Background(), propertyJob(s))
	fate := how(r)
	if fate == "tls" {
		// Once more, on sessions that are resumed: it makes no difference.
		e.pool.CloseIdle()
		if again := how(e.Deliver(context.Background(), propertyJob(s))); again != fate {
			rt.Fatalf("delivered, and then %s", again)
		}
	}
	demanding := s != modeO
	if demanding && fate == "clear" {
		rt.Fatal("delivered in clear under a demand")
	}
	proved := make(map[string]bool)
	for _, h := range r.Attempt.Hosts {
		if h.Verdict.Class == policy.Conclusive {
			proved[h.Host] = true
		}
	}
	for _, h := range hosts {
		if demanding && h.LeakedInClear() {
			rt.Fatalf("%s saw a transaction in clear: %v", h.Name(), h.ClearCommands())
		}
		if fate == "block" && !proved[h.Name()] {
			rt.Fatalf("blocked though %s proved nothing: %+v", h.Name(), r.Attempt.Hosts)
		}
	}
	if fate == "block" && !demanding {
		rt.Fatal("blocked without a demand")
	}
	return fate == "tls" || fate == "clear"
}
