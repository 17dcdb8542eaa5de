package api

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tlsrelay/events"
	"tlsrelay/relay"
)

// blockView is one item of the block list (contract §6); all four fields are
// always there.
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

func (s *server) listBlocks(r *request) (any, error) {
	const most = 500
	f, err := readBlockFilter(r)
	if err != nil {
		return nil, err
	}
	if f.Limit, f.Offset, err = r.page(most, most); err != nil {
		return nil, err
	}
	rows, total, err := s.Blocks.Blocks(r.Context(), string(r.on.ID), f)
	if err != nil {
		return nil, err
	}
	if link := pageLinks(r.Request, f.Limit, f.Offset, total); link != "" {
		r.w.Header().Set("Link", link)
	}
	return viewBlocks(rows), nil
}

// maxFilter is as long as an address can be.
const maxFilter = 320

func readBlockFilter(r *request) (f events.BlockFilter, err error) {
	if f.From, err = r.second("start_time"); err != nil {
		return f, err
	}
	if f.To, err = r.second("end_time"); err != nil {
		return f, err
	}
	f.Prefix = r.URL.Query().Get("email")
	if len(f.Prefix) > maxFilter {
		return f, invalidField("email", "email is too long")
	}
	return f, nil
}

func (s *server) getBlock(r *request) (any, error) {
	b, err := s.Blocks.Block(r.Context(), string(r.on.ID), r.PathValue("email"))
	switch {
	case errors.Is(err, events.ErrNoBlock):
		return []blockView{}, nil
	case err != nil:
		return nil, err
	}
	return viewBlocks([]events.Block{b}), nil
}

func (s *server) deleteBlock(r *request) (any, error) {
	email := r.PathValue("email")
	if err := s.Blocks.DeleteBlock(r.Context(), string(r.on.ID), email); err != nil {
		return nil, err
	}
	s.audit(r, "block removed", email, nil, nil)
	return nil, nil
}

func (s *server) deleteBlocks(r *request) (any, error) {
	o, err := r.object(largeBody)
	if err != nil {
		return nil, err
	}
	var all bool
	var emails []string
	o.boolean("delete_all", &all)
	o.texts("emails", &emails)
	if err := o.err(); err != nil {
		return nil, err
	}
	if all == o.has("emails") {
		return nil, invalidField("", "give either delete_all or emails")
	}
	if all {
		if err := s.Blocks.DeleteBlocks(r.Context(), string(r.on.ID)); err != nil {
			return nil, err
		}
		s.audit(r, "blocks removed", "all", nil, nil)
		return nil, nil
	}
	for _, email := range emails {
		if err := r.Context().Err(); err != nil {
			return nil, err // nobody waits for the rest, and each is a synced write
		}
		err := s.Blocks.DeleteBlock(r.Context(), string(r.on.ID), email)
		if err != nil && !errors.Is(err, events.ErrNoBlock) {
			return nil, err
		}
	}
	s.audit(r, "blocks removed", strconv.Itoa(len(emails))+" addresses", nil, nil)
	return nil, nil
}

// getBlockEvidence is the last block of an address with everything that is
// known of it. The evidence is null once its retention is over.
func (s *server) getBlockEvidence(r *request) (any, error) {
	b, err := s.Blocks.Block(r.Context(), string(r.on.ID), r.PathValue("email"))
	if err != nil {
		return nil, err
	}
	view := blockEvidence{
		Email: b.Email, Reason: b.Reason, Status: b.Status, Created: b.Created, MessageID: b.MessageID,
	}
	id, err := relay.ParseMessageID(b.MessageID)
	if err != nil {
		return view, nil
	}
	_, deliveries, err := s.messageOf(r, id)
	if f, ours := asFault(err); err != nil && (ours || f.status != http.StatusNotFound) {
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

type blockEvidence struct {
	Email     string        `json:"email"`
	Reason    string        `json:"reason"`
	Status    string        `json:"status"`
	Created   time.Time     `json:"created"`
	MessageID string        `json:"message_id"`
	Evidence  *deliveryView `json:"evidence"`
}
