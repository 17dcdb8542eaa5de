package wire

import (
	"bytes"
	"io"
	"net"
	"testing"
	"testing/iotest"
	"time"
)

// body is one that is at hand.
type body []byte

func (b body) NewReader() io.Reader { return bytes.NewReader(b) }
func (b body) Size() int64          { return int64(len(b)) }
func (b body) Close() error         { return nil }

// tenKiB is a body of ordinary lines, some of which begin with a dot.
var tenKiB = body(bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog, and nothing ever comes of it..\r\n.\r\n"), 10<<10/80))

// recorder is a connection that keeps what is written.
type recorder struct {
	nopConn
	bytes.Buffer
}

func (r *recorder) Write(b []byte) (int, error) { return r.Buffer.Write(b) }
func (r *recorder) Read(b []byte) (int, error)  { return 0, io.EOF }
func (r *recorder) Close() error                { return nil }

func stuffed(t testing.TB, b body, buffer int, wrap func(io.Reader) io.Reader) []byte {
	t.Helper()
	rec := &recorder{}
	c := NewConn(rec, 10e9)
	c.Out = make([]byte, 0, buffer)
	w := Content{Conn: c, Stuff: true, bol: true}
	if _, err := io.Copy(&w, wrap(b.NewReader())); err != nil {
		t.Fatal(err)
	}
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	return rec.Bytes()
}

// reference stuffs one octet at a time.
func reference(b []byte) []byte {
	var out []byte
	last := byte('\n')
	for _, c := range b {
		if c == '.' && last == '\n' {
			out = append(out, '.')
		}
		out, last = append(out, c), c
	}
	if last != '\n' {
		out = append(out, "\r\n"...)
	}
	return append(out, ".\r\n"...)
}

func same(r io.Reader) io.Reader { return r }

// plainReader hides WriteTo, as a file would.
func plainReader(r io.Reader) io.Reader { return struct{ io.Reader }{r} }

func TestDotStuffing(t *testing.T) {
	for _, s := range []string{"", ".", "..", ".\r\n", "a", "a\r\n", "a\r\n.\r\nb\r\n", "a\n.\nb", "\r\n.\r\n", ".\r\n.\r\n.", "Subject: greetings\r\n\r\nHello.\r\n..dots\r\n.\r\nBye.\r\n"} {
		want := reference([]byte(s))
		for _, buffer := range []int{1, 2, 3, 64} {
			for _, wrap := range []func(io.Reader) io.Reader{same, plainReader, iotest.OneByteReader} {
				if got := stuffed(t, body(s), buffer, wrap); !bytes.Equal(got, want) {
					t.Errorf("%q through %d: %q, want %q", s, buffer, got, want)
				}
			}
		}
	}
}

func FuzzDotStuffing(f *testing.F) {
	for _, s := range []string{"", ".", "a\r\n.b", "\n.\n.", "Subject: greetings\r\n\r\nHello.\r\n..dots\r\n.\r\nBye.\r\n"} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		want := reference(in)
		got := stuffed(t, in, int(size)+1, plainReader)
		if !bytes.Equal(got, want) {
			t.Fatalf("%q, want %q", got, want)
		}
		if whole := stuffed(t, in, maxWrite, same); !bytes.Equal(whole, want) {
			t.Fatalf("in one piece: %q, want %q", whole, want)
		}
		if n := bytes.Count(got, []byte("\n.\r\n")); n > 1 || n == 0 && !bytes.Equal(got, []byte(".\r\n")) {
			t.Fatalf("%d ends of message in %q", n, got)
		}
	})
}

// TestShortBody: fewer octets than announced must not be passed for a message.
func TestShortBody(t *testing.T) {
	rec := &recorder{}
	c := NewConn(rec, 10e9)
	c.Out = make([]byte, 0, 64)
	w := Content{Conn: c, Stuff: true}
	if err := w.Send(shortBody{body("abc\r\n")}); !IsOwn(err) {
		t.Errorf("error %v", err)
	}
	if bytes.Contains(rec.Bytes(), []byte("\r\n.\r\n")) {
		t.Errorf("ended a message that is not whole: %q", rec.Bytes())
	}
}

// shortBody promises more than it has.
type shortBody struct{ body }

func (b shortBody) Size() int64 { return b.body.Size() + 10 }

func BenchmarkDotStuffing(b *testing.B) {
	c := NewConn(nopConn{}, 10e9)
	c.Out = make([]byte, 0, maxWrite)
	b.SetBytes(int64(len(tenKiB)))
	b.ReportAllocs()
	for b.Loop() {
		c.Out = c.Out[:0]
		w := Content{Conn: c, Stuff: true}
		if err := w.Send(tenKiB); err != nil {
			b.Fatal(err)
		}
	}
}

// nopConn takes everything and says nothing.
type nopConn struct{ net.Conn }

func (nopConn) Write(b []byte) (int, error)      { return len(b), nil }
func (nopConn) SetReadDeadline(time.Time) error  { return nil }
func (nopConn) SetWriteDeadline(time.Time) error { return nil }
