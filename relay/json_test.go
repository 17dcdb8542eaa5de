package relay

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"tlsrelay/policy"
)

// filler fills values of any type with this and that, nothing included.
type filler struct{ *rand.Rand }

var words = []string{"", "a", "mx1.example.test", "250 2.0.0 Ok", "<tag> & \"quotes\" \\", "zeile\r\n", "größe", "\u2028", "\xff"}

func (f filler) fill(v reflect.Value) {
	switch x := v.Addr().Interface().(type) {
	case *Address:
		for _, s := range []string{"", "a@example.com", `"two words"@example.com`, "größe@example.com"}[f.IntN(4):] {
			*x, _ = ParseAddress(s, true)
			return
		}
	case *time.Time:
		switch f.IntN(3) {
		case 0:
			*x = time.Time{}
		case 1:
			*x = time.Unix(f.Int64N(1<<33), f.Int64N(1e9)).UTC()
		default:
			*x = time.Unix(f.Int64N(1<<33), 0).In(time.FixedZone("", 7200))
		}
		return
	case *json.RawMessage:
		*x = [][]byte{nil, []byte(`["a", "<b>"]`), []byte(`"c"`)}[f.IntN(3)]
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Field(i))
		}
	case reflect.Pointer:
		if v.Set(reflect.Zero(v.Type())); f.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			f.fill(v.Elem())
		}
	case reflect.Slice:
		if n := f.IntN(4); n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n-1, n-1))
		}
		for i := range v.Len() {
			f.fill(v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			f.fill(v.Index(i))
		}
	case reflect.Map:
		if n := f.IntN(4); n > 0 {
			v.Set(reflect.MakeMap(v.Type()))
			for range n - 1 {
				key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
				f.fill(key)
				f.fill(value)
				v.SetMapIndex(key, value)
			}
		}
	case reflect.String:
		v.SetString(words[f.IntN(len(words))])
	case reflect.Bool:
		v.SetBool(f.IntN(2) == 0)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(f.IntN(3) * f.IntN(1e9)))
	case reflect.Uint8, reflect.Uint16:
		v.SetUint(uint64(f.IntN(3) * f.IntN(80)))
	default:
		panic("no idea how to fill " + v.Type().String())
	}
}

// What the store writes is what encoding/json would write, field by field: one
// that is added and forgotten here shows.
func TestAppendJSON(t *testing.T) {
	f := filler{rand.New(rand.NewPCG(1, 2))}
	for range 20000 {
		var m Message
		var d Delivery
		f.fill(reflect.ValueOf(&m).Elem())
		f.fill(reflect.ValueOf(&d).Elem())
		for _, c := range []struct {
			of     any
			append func([]byte) ([]byte, error)
		}{{&m, m.AppendJSON}, {&d, d.AppendJSON}} {
			want, err := json.Marshal(c.of)
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.append([]byte("head"))
			if err != nil || string(got) != "head"+string(want) {
				t.Fatalf("%v\n%s\n%s", err, got[4:], want)
			}
		}
	}
}

// What encoding/json refuses is refused.
func TestAppendJSONFails(t *testing.T) {
	d := Delivery{Due: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)}
	if _, err := d.AppendJSON(nil); err == nil {
		t.Error("a year of five digits")
	}
	m := Message{Category: json.RawMessage("{")}
	if _, err := m.AppendJSON(nil); err == nil {
		t.Error("half a category")
	}
}

// A delivery as it is kept after the common case.
func BenchmarkAppendJSON(b *testing.B) {
	now := time.Now()
	to, _ := ParseAddress("someone@example.com", false)
	d := Delivery{
		Key: DeliveryKey{Message: NewMessageID(now)}, Account: "1", Due: now, Attempts: 1,
		Lane:       Lane{Destination: "example.com", Class: policy.ClassOpportunistic},
		Recipients: []Recipient{{Address: to, State: Delivered, Reply: "250 2.0.0 Ok: queued as 4711"}},
		Last: &Attempt{At: now, Took: time.Millisecond, Ruling: policy.Allowed, Hosts: []HostEvidence{{
			Host: "mx1.example.com", Address: "192.0.2.1:25", Stage: policy.StageReady, Hello: policy.FullHello, MXAuth: policy.MXUnsigned,
			Verdict: policy.Verdict{Row: "ENC", Action: policy.Proceed, Class: policy.OK},
			TLS: &policy.Session{
				Version: policy.TLS13, Cipher: "TLS_AES_128_GCM_SHA256", ForwardSecret: true,
				Cert: policy.Certificate{Matched: "mx1.example.com", Subject: "CN=mx1.example.com", Issuer: "CN=CA", NotAfter: now},
			},
		}}},
	}
	for name, encode := range map[string]func() ([]byte, error){
		"ours":          func() ([]byte, error) { return d.AppendJSON(make([]byte, 0, 1024)) },
		"encoding-json": func() ([]byte, error) { return json.Marshal(&d) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := encode(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
