package mail

import (
	"errors"
	"runtime"
	"strconv"
	"strings"
	"time"

	"tlsrelay/events"
	"tlsrelay/relay"
	"tlsrelay/relay/api/rest"
)

// blockView is one item of the block list; all four fields are always there.
type blockView struct {
	Created int64  `json:"created"`
	Email   string `json:"email"`
	Reason  string `json:"reason"`
	Status  string `json:"status"`
}

func viewBlocks(rows []events.Block) []blockView {
	views := make([]blockView, len(rows))
	for i, b := range rows {
		views[i] = blockView{b.Created.Unix(), b.Email, b.Reason, b.Status}
	}
	return views
}

// ListBlocks answers with a page of the list, newest first.
func (s Calls) ListBlocks(r *rest.Request) (any, error) {
	const most = 500
	f, err := readBlockFilter(r)
	if err != nil {
		return nil, err
	}
	if f.Limit, f.Offset, err = r.Page(most, 1, most); err != nil {
		return nil, err
	}
	rows, total, err := s.Blocks.Blocks(r.Context(), string(r.On.ID), f)
	if err != nil {
		return nil, err
	}
	r.TellPages(f.Limit, f.Offset, total)
	return viewBlocks(rows), nil
}

// maxFilter is as long as an address can be.
const maxFilter = 320

func readBlockFilter(r *rest.Request) (f events.BlockFilter, err error) {
	if f.From, err = r.Second("start_time"); err != nil {
		return f, err
	}
	if f.To, err = r.Second("end_time"); err != nil {
		return f, err
	}
	f.Prefix = r.URL.Query().Get("email")
	if len(f.Prefix) > maxFilter {
		return f, rest.InvalidField("email", "email is too long")
	}
	return f, nil
}

// GetBlock answers with the row of an address, in a list that is empty where there is none.
func (s Calls) GetBlock(r *rest.Request) (any, error) {
	b, err := s.Blocks.Block(r.Context(), string(r.On.ID), r.PathValue("email"))
	switch {
	case errors.Is(err, events.ErrNoBlock):
		return []blockView{}, nil
	case err != nil:
		return nil, err
	}
	return viewBlocks([]events.Block{b}), nil
}

// DeleteBlock removes the row of an address.
func (s Calls) DeleteBlock(r *rest.Request) (any, error) {
	email := r.PathValue("email")
	if err := s.Blocks.DeleteBlock(r.Context(), string(r.On.ID), email); err != nil {
		return nil, err
	}
	r.Audit("block removed", email, nil, nil)
	return nil, nil
}

// DeleteBlocks removes the rows of some addresses, or all.
func (s Calls) DeleteBlocks(r *rest.Request, o *rest.Object) (any, error) {
	var all bool
	var emails []string
	o.Bool("delete_all", &all)
	o.Texts("emails", &emails)
	if err := o.Err(); err != nil {
		return nil, err
	}
	if all == o.Has("emails") {
		return nil, rest.InvalidField("", "give either delete_all or emails")
	}
	return nil, s.remove(r, all, emails)
}

// remove removes all rows, or those of some addresses, whether they are there or not.
func (s Calls) remove(r *rest.Request, all bool, emails []string) error {
	if all {
		if err := s.Blocks.DeleteBlocks(r.Context(), string(r.On.ID)); err != nil {
			return err
		}
		r.Audit("blocks removed", "all", nil, nil)
		return nil
	}
	for i, email := range emails {
		if i%16 == 0 {
			runtime.Gosched() // most are not in the list, as a rule: none waits for anything
		}
		if err := r.Context().Err(); err != nil {
			return err // nobody waits for the rest, and each is a synced write
		}
		err := s.Blocks.DeleteBlock(r.Context(), string(r.On.ID), email)
		if err != nil && !errors.Is(err, events.ErrNoBlock) {
			return err
		}
	}
	r.Audit("blocks removed", strconv.Itoa(len(emails))+" addresses", nil, nil)
	return nil
}

// ListRows answers the operator with rows of the list, as they are stored.
func (s Calls) ListRows(r *rest.Request) (any, error) {
	f, err := readBlockFilter(r)
	if err != nil {
		return nil, err
	}
	if f.Limit, f.Offset, err = r.Page(0, 0, rest.NoLimit); err != nil { // 0: all
		return nil, err
	}
	rows, _, err := s.Blocks.Blocks(r.Context(), string(r.On.ID), f)
	return append([]events.Block{}, rows...), err
}

// RemoveRows is DeleteBlocks by the operator's names.
func (s Calls) RemoveRows(r *rest.Request, o *rest.Object) (any, error) {
	var all bool
	var emails []string
	o.Bool("all", &all)
	o.Texts("emails", &emails)
	if err := o.Err(); err != nil {
		return nil, err
	}
	if all == (len(emails) > 0) {
		return nil, rest.InvalidField("", "give either addresses or all")
	}
	return nil, s.remove(r, all, emails)
}

// BlockEvidence is the last block of an address with everything that is
// known of it. The evidence is null once its retention is over.
func (s Calls) BlockEvidence(r *rest.Request) (any, error) {
	b, err := s.Blocks.Block(r.Context(), string(r.On.ID), r.PathValue("email"))
	if err != nil {
		return nil, err
	}
	view := EvidenceView{
		Email: b.Email, Reason: b.Reason, Status: b.Status, Created: b.Created, MessageID: b.MessageID,
	}
	id, err := relay.ParseMessageID(b.MessageID)
	if err != nil {
		return view, nil
	}
	_, deliveries, err := s.messageOf(r, id)
	if err != nil && !errors.Is(err, relay.ErrNotFound) {
		return nil, err
	}
	for _, d := range deliveries {
		for _, rcpt := range d.Recipients {
			if strings.EqualFold(rcpt.Address.String(), b.Email) {
				v := viewDelivery(d)
				view.Evidence = &v
			}
		}
	}
	return view, nil
}

// EvidenceView is a block with what is known of the delivery that met it.
type EvidenceView struct {
	Email     string        `json:"email"`
	Reason    string        `json:"reason"`
	Status    string        `json:"status"`
	Created   time.Time     `json:"created"`
	MessageID string        `json:"message_id"`
	Evidence  *DeliveryView `json:"evidence"`
}
