package store

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
	pMessage   = "!/"
	pSpooled   = "s/"
	pReady     = "q/"
	pHeld      = "z/" // behind pReady: lists show held ones last
	pOutbox    = "o/"
	pBlock     = "k/"
	pBlockTime = "t/"
	pAccount   = "a/"
	pKey       = "p/"
	pEndpoint  = "w/"
	pOverride  = "r/"
	pCounter   = "c/"
)

// errKey is the error of a key that this layout has no place for.
var errKey = errors.New("store: malformed key")

// What follows the id in the keys of a message.
const (
	kindBody     = 'b'
	kindDelivery = 'd'
)

// idLen is the length of an id in a key, idEnd where the kind follows it in
// the keys of a message.
const (
	idLen = len(relay.MessageID{})
	idEnd = len(pMessage) + idLen
)

func messageKey(id relay.MessageID) []byte {
	return append(append(make([]byte, 0, idEnd+1+2), pMessage...), id[:]...)
}

func bodyKey(id relay.MessageID) []byte { return append(messageKey(id), kindBody) }

// deliveriesPrefix begins the keys of all deliveries of a message.
func deliveriesPrefix(id relay.MessageID) []byte { return append(messageKey(id), kindDelivery) }

func deliveryKey(k relay.DeliveryKey) []byte {
	return binary.BigEndian.AppendUint16(deliveriesPrefix(k.Message), k.Number)
}

// isDelivery tells deliveries from the rest of a message.
func isDelivery(key []byte) bool { return len(key) == idEnd+1+2 && key[idEnd] == kindDelivery }

// parseDeliveryKey reads a key of deliveryKey.
func parseDeliveryKey(key []byte) (k relay.DeliveryKey, err error) {
	if !isDelivery(key) {
		return k, errKey
	}
	copy(k.Message[:], key[len(pMessage):])
	k.Number = binary.BigEndian.Uint16(key[idEnd+1:])
	return k, nil
}

func spooledKey(id relay.MessageID) []byte { return append([]byte(pSpooled), id[:]...) }

// parseSpooledKey reads a key of spooledKey.
func parseSpooledKey(key []byte) (id relay.MessageID, err error) {
	if len(key) != len(pSpooled)+idLen {
		return id, errKey
	}
	copy(id[:], key[len(pSpooled):])
	return id, nil
}

// indexTail is the length of due, id and n at the end of an index key.
const indexTail = 8 + idLen + 2

// indexEntry is a key of the ready or the held index, taken apart.
type indexEntry struct {
	lane relay.Lane
	who  account.ID
	due  time.Time
	key  relay.DeliveryKey
}

// queuePrefix begins all index keys of one lane and account.
func queuePrefix(prefix string, lane relay.Lane, who account.ID) []byte {
	b := make([]byte, 0, len(prefix)+len(lane.Destination)+len(lane.Class)+len(who)+3+indexTail)
	b = append(append(b, prefix...), lane.Destination...)
	b = append(append(b, 0), lane.Class...)
	b = append(append(b, 0), who...)
	return append(b, 0)
}

// destinationPrefix begins all index keys of one destination.
func destinationPrefix(prefix, destination string) []byte {
	return append(append([]byte(prefix), destination...), 0)
}

func (e indexEntry) encode(prefix string) []byte {
	b := appendTime(queuePrefix(prefix, e.lane, e.who), e.due)
	b = append(b, e.key.Message[:]...)
	return binary.BigEndian.AppendUint16(b, e.key.Number)
}

// parseIndexKey reads a key of indexEntry.encode.
func parseIndexKey(key []byte) (e indexEntry, err error) {
	if len(key) < 2+3+indexTail {
		return e, errKey
	}
	head, tail := key[2:len(key)-indexTail], key[len(key)-indexTail:]
	parts := bytes.Split(head, []byte{0})
	if len(parts) != 4 || len(parts[3]) != 0 {
		return e, errKey
	}
	e.lane = relay.Lane{Destination: string(parts[0]), Class: policy.Class(parts[1])}
	e.who = account.ID(parts[2])
	e.due = parseTime(tail)
	copy(e.key.Message[:], tail[8:])
	e.key.Number = binary.BigEndian.Uint16(tail[8+idLen:])
	return e, nil
}

// indexHead is the part of an index key that names lane and account.
func indexHead(key []byte) []byte { return key[:max(0, len(key)-indexTail)] }

func outboxPrefix(endpoint string) []byte {
	return append(append([]byte(pOutbox), endpoint...), 0)
}

func outboxKey(endpoint string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(outboxPrefix(endpoint), seq)
}

// parseOutboxKey reads a key of outboxKey.
func parseOutboxKey(key []byte) (endpoint string, seq uint64, err error) {
	at := len(key) - 9
	if at < 2 || key[at] != 0 {
		return "", 0, errKey
	}
	return string(key[2:at]), binary.BigEndian.Uint64(key[at+1:]), nil
}

// scopedKey is a key of an account: blocks and overrides.
func scopedKey(prefix, who, name string) []byte {
	return append(append(append([]byte(prefix), who...), 0), name...)
}

func blockKey(who, email string) []byte {
	return scopedKey(pBlock, who, strings.ToLower(email))
}

// blockTimeKey sorts the newest first.
func blockTimeKey(who, email string, created time.Time) []byte {
	b := invertTime(appendTime(scopedKey(pBlockTime, who, ""), created))
	return append(b, strings.ToLower(email)...)
}

// invertTime turns the order of the time that b ends in.
func invertTime(b []byte) []byte {
	for i := len(b) - 8; i < len(b); i++ {
		b[i] = ^b[i]
	}
	return b
}

// parseBlockTimeKey reads a key of blockTimeKey after its prefix.
func parseBlockTimeKey(key, prefix []byte) (created time.Time, email string, err error) {
	if len(key) < len(prefix)+8 {
		return created, "", errKey
	}
	var t [8]byte
	copy(t[:], key[len(prefix):])
	return parseTime(invertTime(t[:])), string(key[len(prefix)+8:]), nil
}

// appendTime appends a time as eight octets that sort as times do. The zero
// time comes first of all.
func appendTime(b []byte, t time.Time) []byte { return binary.BigEndian.AppendUint64(b, timeBits(t)) }

// The bounds of what has a place in a key: nanoseconds that fit, but for the
// one that is the zero time.
var (
	earliest = time.Unix(0, math.MinInt64+1)
	latest   = time.Unix(0, math.MaxInt64)
)

// timeBits gives the place of a time; one that has none gets that of the
// earliest or the latest.
func timeBits(t time.Time) uint64 {
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

// parseTime reads what appendTime wrote.
func parseTime(b []byte) time.Time { return bitsTime(binary.BigEndian.Uint64(b)) }

func bitsTime(bits uint64) time.Time {
	if bits == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(bits^1<<63)).UTC()
}

// after gives the first key behind all that begin with prefix.
func after(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil // there is no key behind 0xff…
}

// idAt is the lowest id of a message accepted at t.
func idAt(t time.Time) (id relay.MessageID) {
	if ms := t.UnixMilli(); ms > 0 {
		binary.BigEndian.PutUint64(id[:8], uint64(ms)<<16)
	}
	return id
}
