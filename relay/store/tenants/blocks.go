package tenants

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"runtime"
	"strings"
	"time"

	"tlsrelay/events"
	"tlsrelay/relay"
	"tlsrelay/relay/store/layout"
)

// errNoBlock answers in the words of both packages that ask.
var errNoBlock = fmt.Errorf("%w (%w)", events.ErrNoBlock, relay.ErrNotFound)

func sameRow(a, b events.Block) bool {
	return a.Account == b.Account && strings.EqualFold(a.Email, b.Email)
}

// LockBlocks keeps all but one from changing an account's block rows. It is held until
// they are synced, so that accounts do not share it, but by chance. The caller of
// PutBlocks takes it, before he enters the database. Nobody takes two.
func (t *Tenants) LockBlocks(account string) (unlock func()) {
	mu := &t.blocking[maphash.String(blockSeed, account)%uint64(len(t.blocking))]
	mu.Lock()
	return mu.Unlock
}

var blockSeed = maphash.MakeSeed()

// PutBlocks puts rows into the block list, the newest of each address. The caller holds
// LockBlocks.
func PutBlocks(r Reader, b Batch, rows []events.Block) error {
	var errs []error
	for i, row := range rows {
		superseded := false
		for _, later := range rows[i+1:] {
			superseded = superseded || sameRow(row, later)
		}
		if !superseded {
			errs = append(errs, putBlock(r, b, row))
		}
	}
	return errors.Join(errs...)
}

// putBlock adds a row, or replaces an older one.
func putBlock(r Reader, b Batch, row events.Block) error {
	old, found, err := block(r, row.Account, row.Email)
	if err != nil {
		return err
	}
	if found {
		if old.Created.After(row.Created) {
			return nil
		}
		if err := b.Delete(layout.BlockTimeKey(old.Account, old.Email, old.Created)); err != nil {
			return err
		}
	}
	text, err := layout.Encode(row)
	if err != nil {
		return err
	}
	return errors.Join(
		b.Set(layout.BlockKey(row.Account, row.Email), text),
		b.Set(layout.BlockTimeKey(row.Account, row.Email, row.Created), nil),
	)
}

func block(r Reader, who, email string) (b events.Block, found bool, err error) {
	v, found, err := r.Get(layout.BlockKey(who, email))
	if err != nil || !found {
		return b, false, err
	}
	b, err = layout.Decode[events.Block](v)
	return b, err == nil, err
}

// Blocks lists an account's rows, newest first, and says how many match in
// all.
func (t *Tenants) Blocks(ctx context.Context, who string, f events.BlockFilter) (rows []events.Block, total int, err error) {
	prefix := layout.ScopedKey(layout.BlockTimes, who, "")
	lower, upper := prefix, layout.After(prefix)
	// The index is in falling order of time.
	if !f.From.IsZero() {
		upper = layout.After(layout.InvertTime(layout.AppendTime(bytes.Clone(prefix), f.From.Truncate(time.Second))))
	}
	if !f.To.IsZero() {
		lower = layout.InvertTime(layout.AppendTime(bytes.Clone(prefix), f.To.Truncate(time.Second).Add(time.Second-1)))
	}
	err = t.db.View(func(r Reader) error {
		if bytes.Compare(lower, upper) >= 0 {
			return nil
		}
		looked := 0
		return r.Each(lower, upper, func(key, _ []byte) (bool, error) {
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
			row, found, err := block(r, who, email)
			if found {
				rows = append(rows, row)
			}
			return err == nil, err
		})
	})
	return rows, total, err
}

// Block finds the row of one address.
func (t *Tenants) Block(_ context.Context, who, email string) (b events.Block, err error) {
	err = t.db.View(func(r Reader) error {
		found := false
		if b, found, err = block(r, who, email); err == nil && !found {
			err = errNoBlock
		}
		return err
	})
	return b, err
}

// DeleteBlock removes one row.
func (t *Tenants) DeleteBlock(_ context.Context, who, email string) error {
	defer t.LockBlocks(who)()
	return t.db.Update(func(r Reader, b Batch) error {
		row, found, err := block(r, who, email)
		if err != nil {
			return err
		}
		if !found {
			return errNoBlock
		}
		return errors.Join(
			b.Delete(layout.BlockKey(who, email)),
			b.Delete(layout.BlockTimeKey(who, row.Email, row.Created)),
		)
	}, func() {})
}

// DeleteBlocks removes all rows of an account.
func (t *Tenants) DeleteBlocks(_ context.Context, who string) error {
	defer t.LockBlocks(who)()
	return t.db.Update(func(_ Reader, b Batch) error {
		var errs []error
		for _, prefix := range []string{layout.Blocks, layout.BlockTimes} {
			own := layout.ScopedKey(prefix, who, "")
			errs = append(errs, b.DeleteRange(own, layout.After(own)))
		}
		return errors.Join(errs...)
	}, func() {})
}
