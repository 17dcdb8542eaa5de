package mail

import (
	"time"

	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/api/rest"
)

// The forms in which a message and its evidence are shown to its account.
type (
	// MessageView is a message with its deliveries.
	MessageView struct {
		ID         string         `json:"id"`
		Accepted   time.Time      `json:"accepted"`
		From       string         `json:"from"`
		Size       int64          `json:"size"`
		SMTPID     string         `json:"smtp_id"`
		RequireTLS bool           `json:"requiretls"`
		Deliveries []DeliveryView `json:"deliveries"`
	}
	// DeliveryView is a delivery with its last attempt.
	DeliveryView struct {
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

func viewMessage(m relay.Message, ds []relay.Delivery) MessageView {
	v := MessageView{
		ID: m.ID.String(), Accepted: m.Accepted, From: m.From.String(), Size: m.Size,
		SMTPID: m.SMTPID, RequireTLS: m.RequireTLS, Deliveries: make([]DeliveryView, len(ds)),
	}
	for i, d := range ds {
		v.Deliveries[i] = viewDelivery(d)
	}
	return v
}

func viewDelivery(d relay.Delivery) DeliveryView {
	v := DeliveryView{
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

// Message answers with a message of the account.
func (s Calls) Message(r *rest.Request) (any, error) {
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
func (s Calls) messageOf(r *rest.Request, id relay.MessageID) (relay.Message, []relay.Delivery, error) {
	m, ds, err := s.Store.Message(r.Context(), id)
	if err == nil && m.Account != r.On.ID {
		err = relay.ErrNotFound
	}
	if err != nil {
		return relay.Message{}, nil, err
	}
	return m, ds, nil
}

// Evidence is a message with its deliveries, queued and finished, as the operator sees
// it.
type Evidence struct {
	Message    relay.Message    `json:"message"`
	Deliveries []relay.Delivery `json:"deliveries"`
}

// AnyMessage answers the operator with a message of whatever account.
func (s Calls) AnyMessage(r *rest.Request) (any, error) {
	id, err := relay.ParseMessageID(r.PathValue("id"))
	if err != nil {
		return nil, rest.InvalidField("id", "not a message id")
	}
	m, ds, err := s.Store.Message(r.Context(), id)
	for i, d := range ds {
		if d.Last != nil {
			last := *d.Last
			last.Hosts = relay.Explained(last.Hosts)
			ds[i].Last = &last
		}
	}
	return Evidence{m, ds}, err
}
