package layout

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"time"

	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

// The keys of the database. Numbers are big-endian, so that keys sort as the
// numbers do; \0 ends a text that others follow; id is a relay.MessageID,
// which sorts by time of acceptance; n is the number of a delivery in its
// message, two octets; due is a time in eight.
//
//	key                                          value
//	!/ id                                        message
//	!/ id b                                      its body, up to 256 KiB, while it is queued
//	!/ id d n                                    delivery, waiting or finished
//	s/ id                                        nothing: the body is in spool/<id>
//	q/ destination \0 class \0 account \0 due id n   recipients that wait: the ready index
//	z/ destination \0 class \0 account \0 due id n   the same: the held ones
//	o/ endpoint \0 sequence                      event for one webhook
//	k/ account \0 address                        block; the address in lower case
//	t/ account \0 ~created address               nothing: blocks, newest first
//	a/ account                                   account
//	p/ key id                                    API key, its secret hashed
//	w/ endpoint                                  webhook endpoint
//	r/ account \0 domain                         override for a recipient domain
//	c/ name                                      counter
//
// All that belongs to a message stands together, queued or finished, and
// sorts before everything else, on purpose: ids ascend, so that what is new
// always comes behind what is there, and no compaction has to rewrite a backlog
// or old evidence to take it in. A delivery ends where it waited, by a change
// of its record.
const (
	Messages   = "!/"
	Spooled    = "s/"
	Ready      = "q/"
	Held       = "z/" // behind Ready: lists show held ones last
	Outbox     = "o/"
	Blocks     = "k/"
	BlockTimes = "t/"
	Accounts   = "a/"
	Keys       = "p/"
	Endpoints  = "w/"
	Overrides  = "r/"
	Counters   = "c/"
)

// Names of counters.
const (
	CounterLayout   = Counters + "layout"   // Version
	CounterAccounts = Counters + "accounts" // the highest number of an account given out
)

// ErrKey is the error of a key that this layout has no place for.
var ErrKey = errors.New("store: malformed key")

// What follows the id in the keys of a message.
const (
	kindBody     = 'b'
	kindDelivery = 'd'
)

// idLen is the length of an id in a key, idEnd where the kind follows it in
// the keys of a message.
const (
	idLen = len(relay.MessageID{})
	idEnd = len(Messages) + idLen
)

// MessageKey is the key of a message.
func MessageKey(id relay.MessageID) []byte {
	return append(append(make([]byte, 0, idEnd+1+2), Messages...), id[:]...)
}

// BodyKey is the key of the body of a message.
func BodyKey(id relay.MessageID) []byte { return append(MessageKey(id), kindBody) }

// DeliveriesPrefix begins the keys of all deliveries of a message.
func DeliveriesPrefix(id relay.MessageID) []byte { return append(MessageKey(id), kindDelivery) }

// DeliveryKey is the key of a delivery.
func DeliveryKey(k relay.DeliveryKey) []byte {
	return binary.BigEndian.AppendUint16(DeliveriesPrefix(k.Message), k.Number)
}

// IsDelivery tells deliveries from the rest of a message.
func IsDelivery(key []byte) bool { return len(key) == idEnd+1+2 && key[idEnd] == kindDelivery }

// ParseDeliveryKey reads a key of deliveryKey.
func ParseDeliveryKey(key []byte) (k relay.DeliveryKey, err error) {
	if !IsDelivery(key) {
		return k, ErrKey
	}
	copy(k.Message[:], key[len(Messages):])
	k.Number = binary.BigEndian.Uint16(key[idEnd+1:])
	return k, nil
}

// SpooledKey is the key that says that the body of a message is in a spool file.
func SpooledKey(id relay.MessageID) []byte { return append([]byte(Spooled), id[:]...) }

// ParseSpooledKey reads a key of spooledKey.
func ParseSpooledKey(key []byte) (id relay.MessageID, err error) {
	if len(key) != len(Spooled)+idLen {
		return id, ErrKey
	}
	copy(id[:], key[len(Spooled):])
	return id, nil
}

// indexTail is the length of due, id and n at the end of an index key.
const indexTail = 8 + idLen + 2

// IndexEntry is a key of the ready or the held index, taken apart.
type IndexEntry struct {
	Lane relay.Lane
	Who  account.ID
	Due  time.Time
	Key  relay.DeliveryKey
}

// QueuePrefix begins all index keys of one destination queue and account.
func QueuePrefix(prefix string, lane relay.Lane, who account.ID) []byte {
	b := make([]byte, 0, len(prefix)+len(lane.Destination)+len(lane.Class)+len(who)+3+indexTail)
	b = append(append(b, prefix...), lane.Destination...)
	b = append(append(b, 0), lane.Class...)
	b = append(append(b, 0), who...)
	return append(b, 0)
}

// DestinationPrefix begins all index keys of one destination.
func DestinationPrefix(prefix, destination string) []byte {
	return append(append([]byte(prefix), destination...), 0)
}

// Encode gives the key of the entry in the index of prefix, Ready or Held.
func (e IndexEntry) Encode(prefix string) []byte {
	b := AppendTime(QueuePrefix(prefix, e.Lane, e.Who), e.Due)
	b = append(b, e.Key.Message[:]...)
	return binary.BigEndian.AppendUint16(b, e.Key.Number)
}

// ParseIndexKey reads a key of indexEntry.encode.
func ParseIndexKey(key []byte) (e IndexEntry, err error) {
	if len(key) < 2+3+indexTail {
		return e, ErrKey
	}
	head, tail := key[2:len(key)-indexTail], key[len(key)-indexTail:]
	parts := bytes.Split(head, []byte{0})
	if len(parts) != 4 || len(parts[3]) != 0 {
		return e, ErrKey
	}
	e.Lane = relay.Lane{Destination: string(parts[0]), Class: policy.Class(parts[1])}
	e.Who = account.ID(parts[2])
	e.Due = ParseTime(tail)
	copy(e.Key.Message[:], tail[8:])
	e.Key.Number = binary.BigEndian.Uint16(tail[8+idLen:])
	return e, nil
}

// IndexHead is the part of an index key that names destination queue and account.
func IndexHead(key []byte) []byte { return key[:max(0, len(key)-indexTail)] }

// RowsPrefix begins the keys of all rows of the outbox for one endpoint.
func RowsPrefix(endpoint string) []byte {
	return append(append([]byte(Outbox), endpoint...), 0)
}

// RowKey is the key of the row of the outbox with number seq.
func RowKey(endpoint string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(RowsPrefix(endpoint), seq)
}

// ParseRowKey reads a key of outboxKey.
func ParseRowKey(key []byte) (endpoint string, seq uint64, err error) {
	at := len(key) - 9
	if at < 2 || key[at] != 0 {
		return "", 0, ErrKey
	}
	return string(key[2:at]), binary.BigEndian.Uint64(key[at+1:]), nil
}

// AccountKey is the key of an account.
func AccountKey(id account.ID) []byte { return append([]byte(Accounts), id...) }

// KeyKey is the key of an API key.
func KeyKey(id string) []byte { return append([]byte(Keys), id...) }

// EndpointKey is the key of a webhook endpoint.
func EndpointKey(id string) []byte { return append([]byte(Endpoints), id...) }

// ScopedKey is a key of an account: blocks and overrides.
func ScopedKey(prefix, who, name string) []byte {
	return append(append(append([]byte(prefix), who...), 0), name...)
}

// BlockKey is the key of the block of an address.
func BlockKey(who, email string) []byte {
	return ScopedKey(Blocks, who, strings.ToLower(email))
}

// BlockTimeKey sorts the newest first.
func BlockTimeKey(who, email string, created time.Time) []byte {
	b := InvertTime(AppendTime(ScopedKey(BlockTimes, who, ""), created))
	return append(b, strings.ToLower(email)...)
}

// InvertTime turns the order of the time that b ends in.
func InvertTime(b []byte) []byte {
	for i := len(b) - 8; i < len(b); i++ {
		b[i] = ^b[i]
	}
	return b
}

// ParseBlockTimeKey reads a key of blockTimeKey after its prefix.
func ParseBlockTimeKey(key, prefix []byte) (created time.Time, email string, err error) {
	if len(key) < len(prefix)+8 {
		return created, "", ErrKey
	}
	var t [8]byte
	copy(t[:], key[len(prefix):])
	return ParseTime(InvertTime(t[:])), string(key[len(prefix)+8:]), nil
}

// AppendTime appends a time as eight octets that sort as times do. The zero
// time comes first of all.
func AppendTime(b []byte, t time.Time) []byte { return binary.BigEndian.AppendUint64(b, TimeBits(t)) }

// The bounds of what has a place in a key: nanoseconds that fit, but for the
// one that is the zero time.
var (
	earliest = time.Unix(0, math.MinInt64+1)
	latest   = time.Unix(0, math.MaxInt64)
)

// TimeBits gives the place of a time; one that has none gets that of the
// earliest or the latest.
func TimeBits(t time.Time) uint64 {
	switch {
	case t.IsZero():
		return 0
	case t.Before(earliest):
		t = earliest
	case t.After(latest):
		t = latest
	}
	return uint64(t.UnixNano()) ^ 1<<63
}

// ParseTime reads what appendTime wrote.
func ParseTime(b []byte) time.Time { return bitsTime(binary.BigEndian.Uint64(b)) }

func bitsTime(bits uint64) time.Time {
	if bits == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(bits^1<<63)).UTC()
}

// After gives the first key behind all that begin with prefix.
func After(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil // there is no key behind 0xff…
}

// IDAt is the lowest id of a message accepted at t.
func IDAt(t time.Time) (id relay.MessageID) {
	if ms := t.UnixMilli(); ms > 0 {
		binary.BigEndian.PutUint64(id[:8], uint64(ms)<<16)
	}
	return id
}

// EntryOf gives the index entry of a delivery that waits.
func EntryOf(d relay.Delivery) IndexEntry {
	return IndexEntry{Lane: d.Lane, Who: d.Account, Due: d.Due, Key: d.Key}
}

// IndexValue is the value of the index entry of a delivery: how many of its recipients
// wait.
func IndexValue(recipients int) []byte {
	if recipients < len(fewRecipients) {
		return fewRecipients[recipients : recipients+1 : recipients+1]
	}
	return binary.AppendUvarint(nil, uint64(recipients))
}

// fewRecipients are the values of one octet.
var fewRecipients = func() (b [128]byte) {
	for i := range b {
		b[i] = byte(i)
	}
	return b
}()

// ParseIndexValue reads a value of IndexValue; known is false for an entry of an older
// program, which does not say.
func ParseIndexValue(v []byte) (recipients int, known bool) {
	n, size := binary.Uvarint(v)
	return int(n), size > 0
}

// WaitingRecipients counts the recipients of d that wait.
func WaitingRecipients(d *relay.Delivery) (n int) {
	for i := range d.Recipients {
		if d.Recipients[i].State == relay.Waiting {
			n++
		}
	}
	return n
}
