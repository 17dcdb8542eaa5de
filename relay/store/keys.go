package store

import (
	"bytes"
	"encoding/binary"
	"errors"
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
//	!/ id                                        message that has left the queue
//	!/ id n                                      finished delivery, the evidence
//	m/ id                                        message in the queue
//	d/ id n                                      delivery in the queue
//	b/ id                                        body, up to 256 KiB
//	s/ id                                        nothing: the body is in spool/<id>
//	q/ destination \0 class \0 account \0 due id n   nothing: the ready index
//	z/ destination \0 class \0 account \0 due id n   nothing: the held ones
//	o/ endpoint \0 sequence                      event for one webhook
//	k/ account \0 address                        block; the address in lower case
//	t/ account \0 ~created address               nothing: blocks, newest first
//	a/ account                                   account
//	p/ key id                                    API key, its secret hashed
//	w/ endpoint                                  webhook endpoint
//	r/ account \0 domain                         override for a recipient domain
//	c/ name                                      counter
//
// Evidence sorts before everything else, on purpose: ids ascend, so that new
// evidence always comes behind the old and no compaction has to rewrite what
// is there. With keys of the queue on both sides of it, every table flushed
// would span all evidence.
const (
	pEvidence  = "!/"
	pMessage   = "m/"
	pDelivery  = "d/"
	pBody      = "b/"
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

func messageKey(prefix string, id relay.MessageID) []byte {
	return append([]byte(prefix), id[:]...)
}

func deliveryKey(prefix string, k relay.DeliveryKey) []byte {
	return appendDeliveryKey([]byte(prefix), k)
}

func appendDeliveryKey(b []byte, k relay.DeliveryKey) []byte {
	return binary.BigEndian.AppendUint16(append(b, k.Message[:]...), k.Number)
}

// parseMessageKey reads a key of messageKey.
func parseMessageKey(key []byte) (id relay.MessageID, err error) {
	if len(key) != 2+len(id) {
		return id, errKey
	}
	copy(id[:], key[2:])
	return id, nil
}

// parseDeliveryKey reads a key of deliveryKey.
func parseDeliveryKey(key []byte) (k relay.DeliveryKey, err error) {
	if len(key) != 2+len(k.Message)+2 {
		return k, errKey
	}
	copy(k.Message[:], key[2:])
	k.Number = binary.BigEndian.Uint16(key[2+len(k.Message):])
	return k, nil
}

// isEnded tells the record of an ended message from the deliveries that
// follow it.
func isEnded(key []byte) bool { return len(key) == len(pEvidence)+len(relay.MessageID{}) }

// indexTail is the length of due, id and n at the end of an index key.
const indexTail = 8 + 16 + 2

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
	return appendDeliveryKey(b, e.key)
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
	e.key.Number = binary.BigEndian.Uint16(tail[24:])
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

func timeBits(t time.Time) uint64 {
	if t.IsZero() {
		return 0
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
