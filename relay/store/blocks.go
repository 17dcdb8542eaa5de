package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"tlsrelay/events"
	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
)

// errNoBlock answers in the words of both packages that ask.
var errNoBlock = fmt.Errorf("%w (%w)", events.ErrNoBlock, relay.ErrNotFound)

func sameRow(a, b events.Block) bool {
	return a.Account == b.Account && strings.EqualFold(a.Email, b.Email)
}

// putBlock adds a row, or replaces an older one. The caller holds lockBlocks.
func (w *write) putBlock(row events.Block) error {
	old, found, err := block(w.db, row.Account, row.Email)
	if err != nil {
		return err
	}
	if found {
		if old.Created.After(row.Created) {
			return nil
		}
		if err := w.batch.Delete(layout.BlockTimeKey(old.Account, old.Email, old.Created), nil); err != nil {
			return err
		}
	}
	text, err := layout.Encode(row)
	if err != nil {
		return err
	}
	return errors.Join(
		w.set(layout.BlockKey(row.Account, row.Email), text),
		w.set(layout.BlockTimeKey(row.Account, row.Email, row.Created), nil),
	)
}

func block(db *engine.DB, who, email string) (b events.Block, found bool, err error) {
	v, found, err := db.Get(layout.BlockKey(who, email))
	if err != nil || !found {
		return b, false, err
	}
	b, err = layout.Decode[events.Block](v)
	return b, err == nil, err
}

// Blocks lists an account's rows, newest first, and says how many match in
// all.
func (s *Store) Blocks(ctx context.Context, who string, f events.BlockFilter) (rows []events.Block, total int, err error) {
	db, err := s.engine.Enter()
	if err != nil {
		return nil, 0, err
	}
	defer s.engine.Leave()
	prefix := layout.ScopedKey(layout.BlockTimes, who, "")
	lower, upper := prefix, layout.After(prefix)
	// The index is in falling order of time.
	if !f.From.IsZero() {
		upper = layout.After(layout.InvertTime(layout.AppendTime(bytes.Clone(prefix), f.From.Truncate(time.Second))))
	}
	if !f.To.IsZero() {
		lower = layout.InvertTime(layout.AppendTime(bytes.Clone(prefix), f.To.Truncate(time.Second).Add(time.Second-1)))
	}
	if bytes.Compare(lower, upper) >= 0 {
		return nil, 0, nil
	}
	looked := 0
	err = db.Each(lower, upper, func(key, _ []byte) (bool, error) {
		if looked++; looked%256 == 0 {
			runtime.Gosched() // a list may be as long as its account likes
		}
		_, email, err := layout.ParseBlockTimeKey(key, prefix)
		if err != nil {
			return false, err
		}
		if !f.Finds(email) {
			return true, ctx.Err()
		}
		total++
		if total <= f.Offset || f.Limit > 0 && len(rows) == f.Limit {
			return true, ctx.Err()
		}
		row, found, err := block(db, who, email)
		if found {
			rows = append(rows, row)
		}
		return err == nil, err
	})
	return rows, total, err
}

// Block finds the row of one address.
func (s *Store) Block(_ context.Context, who, email string) (events.Block, error) {
	db, err := s.engine.Enter()
	if err != nil {
		return events.Block{}, err
	}
	defer s.engine.Leave()
	b, found, err := block(db, who, email)
	if err == nil && !found {
		err = errNoBlock
	}
	return b, err
}

// DeleteBlock removes one row.
func (s *Store) DeleteBlock(_ context.Context, who, email string) error {
	db, err := s.engine.Enter()
	if err != nil {
		return err
	}
	defer s.engine.Leave()
	defer s.lockBlocks(who)()
	row, found, err := block(db, who, email)
	if err != nil {
		return err
	}
	if !found {
		return errNoBlock
	}
	b := db.NewBatch()
	err = errors.Join(
		b.Delete(layout.BlockKey(who, email), nil),
		b.Delete(layout.BlockTimeKey(who, row.Email, row.Created), nil),
	)
	if err != nil {
		return err
	}
	return db.Apply(b, true)
}

// DeleteBlocks removes all rows of an account.
func (s *Store) DeleteBlocks(_ context.Context, who string) error {
	db, err := s.engine.Enter()
	if err != nil {
		return err
	}
	defer s.engine.Leave()
	defer s.lockBlocks(who)()
	b := db.NewBatch()
	for _, prefix := range []string{layout.Blocks, layout.BlockTimes} {
		own := layout.ScopedKey(prefix, who, "")
		if err := b.DeleteRange(own, layout.After(own), nil); err != nil {
			return err
		}
	}
	return db.Apply(b, true)
}
