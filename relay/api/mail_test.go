package api

import (
	"context"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

// seedMail has one message of the parent and one of sub1 blocked, as the
// queue would: accepted, tried, committed. {{message}} is the parent's;
// {{old}} one whose evidence is gone.
func (w *world) seedMail() {
	at := testNow.Add(-30 * time.Second) // 12:00:00
	id := relay.NewMessageID(at)
	old := relay.NewMessageID(at.Add(-time.Hour)).String()
	w.vars["message"], w.vars["old"] = id.String(), old
	block := func(seconds int, email, status, message string) events.Block {
		return events.Block{
			Account: "1", Email: email, Reason: events.TLSBlocked, Status: status,
			Created: at.Add(time.Duration(seconds) * time.Second), MessageID: message,
		}
	}
	w.block(id, "1", []events.Block{
		block(-40, "carol@example.net", "5.7.10", old),
		block(-30, "bill@example.net", "5.7.10", old),
		block(-20, "odd/slash@example.com", "5.7.5", old),
		block(-10, "bob@example.com", "5.7.4", id.String()),
		block(0, "a+b@example.com", "5.7.10", old),
	})
	other := relay.NewMessageID(at)
	theirs := block(-10, "bob@example.com", "5.7.30", other.String())
	theirs.Account = "2"
	w.block(other, "2", []events.Block{theirs})
}

// block takes one message to bob@example.com through the store to its block.
func (w *world) block(id relay.MessageID, who account.ID, rows []events.Block) {
	ctx := context.Background()
	from, _ := relay.ParseAddress("sender@example.org", false)
	to, _ := relay.ParseAddress("bob@example.com", false)
	m := relay.Message{
		ID: id, Account: who, Accepted: testNow.Add(-90 * time.Second),
		From: from, Size: 5, SMTPID: "<m@example.org>", Deliveries: 1,
	}
	before := relay.Delivery{
		Key: relay.DeliveryKey{Message: id}, Account: who, Attempts: 1, Due: testNow,
		Lane:       relay.Lane{Destination: "example.com", Class: policy.ClassEncrypt},
		Recipients: []relay.Recipient{{Address: to}},
	}
	body := w.store.NewDraft("1")
	if _, err := body.Write([]byte("body\n")); err != nil {
		w.t.Fatal(err)
	}
	if err := w.store.Accept(ctx, m, []relay.Delivery{before}, body, nil); err != nil {
		w.t.Fatal(err)
	}
	after := before
	after.Recipients = []relay.Recipient{{Address: to, State: relay.Blocked, Reply: events.TLSBlocked}}
	after.Last = &relay.Attempt{
		At: testNow.Add(-40 * time.Second), Took: 1500 * time.Millisecond,
		Ruling: policy.Block, Reason: events.TLSVersion,
		Hosts: []relay.HostEvidence{{
			Host: "mx.example.com", Address: "192.0.2.1:25", Stage: policy.StageHandshake,
			Verdict: policy.Verdict{
				Row: "C1", Action: policy.Next, Class: policy.Conclusive, Reason: events.TLSVersion,
				Failed: policy.Demand{Requirement: policy.MinimumVersion, Source: policy.FromAccount, Version: policy.TLS12},
			},
		}},
	}
	t := relay.Transition{Message: m, Before: before, After: after, Done: true, Blocks: rows, Sync: true}
	if err := w.store.Commit(ctx, t); err != nil {
		w.t.Fatal(err)
	}
}
