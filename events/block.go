package events

import (
	"context"
	"errors"
	"strings"
	"time"
)

// ErrNoBlock is the error of an address without a row in the block list.
var ErrNoBlock = errors.New("events: no such block")

// BlockFilter narrows a list of blocks. The zero BlockFilter lets all through.
type BlockFilter struct {
	From, To time.Time // of Created, inclusive, to the second; zero: open
	Prefix   string    // of the address, in upper or lower case; % stands for anything
	Offset   int
	Limit    int // 0: no limit
}

// Finds reports whether Prefix matches an address.
func (f BlockFilter) Finds(email string) bool {
	first, rest, wild := strings.Cut(strings.ToLower(f.Prefix), "%")
	email, ok := strings.CutPrefix(strings.ToLower(email), first)
	for ok && wild {
		first, rest, wild = strings.Cut(rest, "%")
		_, email, ok = strings.Cut(email, first)
	}
	return ok
}

// BlockStore is the block list. relay/store implements it. A row comes into it with the
// transition that blocks. Upper and lower case make no difference to the address, and a
// row has the spelling of the newest block.
type BlockStore interface {
	// Blocks lists an account's rows, newest first, and says how many rows
	// match in all.
	Blocks(ctx context.Context, account string, f BlockFilter) (rows []Block, total int, err error)
	// Block finds the row of one address; ErrNoBlock when there is none.
	Block(ctx context.Context, account, email string) (Block, error)
	// DeleteBlock removes one row; ErrNoBlock when there is none.
	DeleteBlock(ctx context.Context, account, email string) error
	// DeleteBlocks removes all rows of an account.
	DeleteBlocks(ctx context.Context, account string) error
}
