package api

import (
	"time"

	"tlsrelay/policy"
	"tlsrelay/relay"
)

// The forms in which a message and its evidence are shown.
type (
	messageView struct {
		ID         string         `json:"id"`
		Accepted   time.Time      `json:"accepted"`
		From       string         `json:"from"`
		Size       int64          `json:"size"`
		SMTPID     string         `json:"smtp_id"`
		RequireTLS bool           `json:"requiretls"`
		Deliveries []deliveryView `json:"deliveries"`
	}
	deliveryView struct {
		Destination string          `json:"destination"`
		Class       policy.Class    `json:"class"`
		Attempts    int             `json:"attempts"`
		Next        *time.Time      `json:"next_attempt"` // null once finished
		Held        bool            `json:"held"`
		Recipients  []recipientView `json:"recipients"`
		Last        *attemptView    `json:"last_attempt"` // null before the first
	}
	recipientView struct {
		Email string `json:"email"`
		State string `json:"state"`
		Reply string `json:"reply"`
	}
	attemptView struct {
		At      time.Time            `json:"at"`
		Seconds float64              `json:"seconds"`
		Ruling  policy.Ruling        `json:"ruling"`
		Reason  string               `json:"reason"`
		Hosts   []relay.HostEvidence `json:"hosts"`
	}
)

func viewMessage(m relay.Message, ds []relay.Delivery) messageView {
	v := messageView{
		ID: m.ID.String(), Accepted: m.Accepted, From: m.From.String(), Size: m.Size,
		SMTPID: m.SMTPID, RequireTLS: m.RequireTLS, Deliveries: make([]deliveryView, len(ds)),
	}
	for i, d := range ds {
		v.Deliveries[i] = viewDelivery(d)
	}
	return v
}

func viewDelivery(d relay.Delivery) deliveryView {
	v := deliveryView{
		Destination: d.Lane.Destination, Class: d.Lane.Class, Attempts: d.Attempts, Held: d.Held,
		Recipients: make([]recipientView, len(d.Recipients)),
	}
	for i, r := range d.Recipients {
		v.Recipients[i] = recipientView{r.Address.String(), string(r.State), r.Reply}
		if r.State == relay.Waiting {
			v.Recipients[i].State = "waiting"
			v.Next = &d.Due
		}
	}
	if a := d.Last; a != nil {
		v.Last = &attemptView{a.At, a.Took.Seconds(), a.Ruling, string(a.Reason), relay.Explained(a.Hosts)}
		if v.Last.Hosts == nil {
			v.Last.Hosts = []relay.HostEvidence{}
		}
	}
	return v
}

func (s *server) getMessage(r *request) (any, error) {
	id, err := relay.ParseMessageID(r.PathValue("id"))
	if err != nil {
		return nil, relay.ErrNotFound
	}
	m, ds, err := s.messageOf(r, id)
	if err != nil {
		return nil, err
	}
	return viewMessage(m, ds), nil
}

// messageOf finds a message if it is the account's. Another's is not found.
func (s *server) messageOf(r *request, id relay.MessageID) (relay.Message, []relay.Delivery, error) {
	m, ds, err := s.Evidence.Message(r.Context(), id)
	if err == nil && m.Account != r.on.ID {
		err = relay.ErrNotFound
	}
	if err != nil {
		return relay.Message{}, nil, err
	}
	return m, ds, nil
}
