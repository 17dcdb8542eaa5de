package mail

import (
	"bytes"
	"sync"

	"tlsrelay/relay/store/layout"
)

// fronts remembers where the index of a destination queue and account begins. A queue
// is consumed at one end and leaves deleted keys there. The database steps over them one
// by one until a compaction has removed them; for a busy queue it would do so on every
// Claim.
type fronts struct {
	mu sync.Mutex
	at map[string]*front
}

// front is where to begin: no entry lies before from. added is the lowest entry
// put in since the scan in progress began.
type front struct {
	from, added []byte
	scans       int
}

// maxFronts bounds the memory. A queue that is forgotten is read from its start again.
const maxFronts = 1 << 14

// begin starts a scan of the entries with this prefix.
func (l *fronts) begin(prefix []byte) front {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.at[string(prefix)]
	if e == nil {
		if l.at == nil {
			l.at = make(map[string]*front)
		}
		for k, old := range l.at {
			if len(l.at) < maxFronts {
				break
			}
			if old.scans == 0 {
				delete(l.at, k)
			}
		}
		e = &front{from: bytes.Clone(prefix)}
		l.at[string(prefix)] = e
	}
	if e.scans == 0 {
		e.added = nil
	}
	e.scans++
	return *e
}

// end notes that the scan begun as was found nothing before first; nil:
// nothing at all. Only a lone scan that went well proves that.
func (l *fronts) end(prefix []byte, was front, first []byte, well bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.at[string(prefix)]
	e.scans--
	if !well || e.scans > 0 || was.scans > 1 {
		return
	}
	if first == nil {
		first = layout.After(prefix)
	}
	e.from = lower(first, e.added)
}

// forget begins all anew.
func (l *fronts) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = nil
}

// added notes new entries. It is called after they can be seen, so that a scan either
// saw them or hears of them.
func (l *fronts) added(keys [][]byte) {
	if len(keys) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		if e := l.at[string(layout.IndexHead(key))]; e != nil {
			e.from = lower(e.from, key)
			e.added = lower(key, e.added)
		}
	}
}

// lower gives the lower of a and b; a nil b is none.
func lower(a, b []byte) []byte {
	if b != nil && bytes.Compare(b, a) < 0 {
		return b
	}
	return a
}
