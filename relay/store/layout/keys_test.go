package layout

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

// Index keys sort by destination queue, account, due and id, and read back as written.
func TestIndexKeyOrder(t *testing.T) {
	now := time.Now().UTC().Round(0)
	var keys [][]byte
	for _, dest := range []string{"[192.0.2.1]", "a.example", "a.example.org", "b.example"} {
		for _, class := range []policy.Class{policy.ClassOpportunistic, policy.ClassEncrypt} {
			for _, who := range []account.ID{"1", "12", "2"} {
				for _, due := range []time.Time{{}, time.Unix(-5, 0).UTC(), now, now.Add(1), now.Add(time.Hour)} {
					for n := range uint16(2) {
						e := IndexEntry{
							Lane: relay.Lane{Destination: dest, Class: class}, Who: who,
							Due: due, Key: relay.DeliveryKey{Number: n},
						}
						key := e.Encode(Ready)
						got, err := ParseIndexKey(key)
						if err != nil || got != e {
							t.Fatalf("%+v: read back as %+v, %v", e, got, err)
						}
						keys = append(keys, key)
					}
				}
			}
		}
	}
	shuffled := slices.Clone(keys)
	rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	slices.SortFunc(shuffled, bytes.Compare)
	for i := range keys {
		if !bytes.Equal(keys[i], shuffled[i]) {
			t.Fatalf("key %d is out of order", i)
		}
	}
}

// Times without a place of their own have that of the nearest that has one:
// nanoseconds since 1970 end in 1677 and in 2262.
func TestTimesBeyondKeys(t *testing.T) {
	at := []time.Time{
		{}, time.Unix(-1<<40, 0), time.Unix(0, math.MinInt64), time.Unix(-1, 0), time.Unix(0, 0), time.Now(),
		time.Unix(0, math.MaxInt64), time.Unix(9999999999, 0), time.Unix(253402300799, 0),
	}
	var before []byte
	for _, when := range at {
		key := AppendTime(nil, when)
		if bytes.Compare(before, key) > 0 {
			t.Errorf("%v sorts before an earlier time", when)
		}
		before = key
		if got := ParseTime(key); got.IsZero() != when.IsZero() {
			t.Errorf("%v reads back as %v", when, got)
		}
	}
}

func TestAfter(t *testing.T) {
	for _, c := range [][2]string{{"q/", "q0"}, {"a\xff", "b"}, {"a\x00", "a\x01"}, {"\xff\xff", ""}} {
		if got := After([]byte(c[0])); string(got) != c[1] {
			t.Errorf("after %q: %q, want %q", c[0], got, c[1])
		}
	}
}

func TestStateRecord(t *testing.T) {
	d := relay.Delivery{Attempts: 3, Due: time.Now().UTC().Round(0), Held: true, Account: "7"}
	v, err := EncodeDelivery(d, false)
	if err != nil {
		t.Fatal(err)
	}
	moved := State{Attempts: 4, Due: d.Due.Add(time.Hour)}
	got, _, err := DecodeDelivery(WithState(v, moved))
	if err != nil || got.Attempts != 4 || got.Held || !got.Due.Equal(moved.Due) || got.Account != "7" {
		t.Fatalf("%+v, %v", got, err)
	}
	if moved.Same(StateOf(d)) || !StateOf(d).Same(State{Attempts: 3, Due: d.Due}) {
		t.Fatal("a claim ends by attempts or due, not by a hold")
	}
}

func TestUnrecordableDelivery(t *testing.T) {
	nowhere := time.Now().In(time.FixedZone("", 24*60*60)) // RFC 3339 ends at 23:59
	host := relay.HostEvidence{TLS: &policy.Session{Cert: policy.Certificate{NotAfter: nowhere}}}
	for name, d := range map[string]relay.Delivery{
		"evidence": {Last: &relay.Attempt{Hosts: []relay.HostEvidence{host}}},
		"account":  {Account: account.ID(bytes.Repeat([]byte("1"), 256))},
	} {
		if _, err := EncodeDelivery(d, true); !errors.Is(err, relay.ErrUnrecordable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever stands in the database, reading it is an error at worst.
func FuzzParse(f *testing.F) {
	e := IndexEntry{Due: time.Now(), Who: "1", Lane: relay.Lane{Destination: "a.example", Class: "t"}}
	f.Add(e.Encode(Ready))
	f.Add(RowKey("e", 7))
	f.Add(BlockTimeKey("1", "a@example.com", time.Now()))
	v, _ := EncodeDelivery(relay.Delivery{Account: "1"}, true)
	f.Add(v)
	f.Add(DeliveryKey(relay.DeliveryKey{Number: 3}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := ParseIndexKey(b); err == nil && !bytes.Equal(e.Encode(string(b[:2])), b) {
			t.Errorf("index key %q reads back as %q", b, e.Encode(string(b[:2])))
		}
		if id, seq, err := ParseRowKey(b); err == nil && !bytes.Equal(RowKey(id, seq)[2:], b[2:]) {
			t.Errorf("outbox key %q", b)
		}
		if k, err := ParseDeliveryKey(b); err == nil && !bytes.Equal(DeliveryKey(k)[2:], b[2:]) {
			t.Errorf("delivery key %q", b)
		}
		ParseSpooledKey(b)
		ParseBlockTimeKey(b, []byte("t/1\x00"))
		DecodeDelivery(b)
		Owner(b)
		After(b)
	})
}
