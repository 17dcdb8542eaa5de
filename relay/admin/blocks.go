package admin

import (
	"context"
	"net/http"

	"go.uber.org/zap"

	"tlsrelay/events"
)

// Blocks are the block lists. relay/store implements it.
type Blocks interface {
	Blocks(ctx context.Context, account string, f events.BlockFilter) (rows []events.Block, total int, err error)
	DeleteBlock(ctx context.Context, account, email string) error
	DeleteBlocks(ctx context.Context, account string) error
}

// BlockRemoval names the rows to remove: some addresses, or all.
type BlockRemoval struct {
	Emails []string `json:"emails,omitempty"`
	All    bool     `json:"all,omitempty"`
}

func (s *server) listBlocks(r *http.Request) (any, error) {
	a, err := s.find(r)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	offset, err1 := number(q.Get("offset"))
	limit, err2 := number(q.Get("limit"))
	if err1 != nil || err2 != nil {
		return nil, badRequest("offset and limit must be whole numbers")
	}
	rows, _, err := s.Blocks.Blocks(r.Context(), string(a.ID), events.BlockFilter{
		Prefix: q.Get("email"), Offset: offset, Limit: limit,
	})
	if rows == nil {
		rows = []events.Block{}
	}
	return rows, err
}

func (s *server) removeBlocks(r *http.Request) (any, error) {
	var in BlockRemoval
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if in.All == (len(in.Emails) > 0) {
		return nil, badRequest("give either addresses or all")
	}
	a, err := s.find(r)
	if err != nil {
		return nil, err
	}
	s.audit("blocks removed", a.ID, zap.Bool("all", in.All), zap.Strings("emails", in.Emails))
	if in.All {
		return nil, s.Blocks.DeleteBlocks(r.Context(), string(a.ID))
	}
	for _, email := range in.Emails {
		if err := s.Blocks.DeleteBlock(r.Context(), string(a.ID), email); err != nil {
			return nil, err
		}
	}
	return nil, nil
}
