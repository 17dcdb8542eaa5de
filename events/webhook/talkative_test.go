package webhook

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// A consumer that has answered, and goes on to say what nobody asked for, loses its
// connection: it could keep the relay busy with it for as long as it likes.
func TestConsumerThatDoesNotStop(t *testing.T) {
	var acks atomic.Int64
	var ended, handlers sync.WaitGroup
	ended.Add(1)
	end := sync.OnceFunc(ended.Done)
	floods := func(c net.Conn, more func() error) {
		defer c.Close()
		for begun := time.Now(); time.Since(begun) < 5*time.Second; {
			if more() != nil {
				end()
				return
			}
		}
	}
	ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		handlers.Go(func() {
			floods(c, func() error { _, err := c.Write(make([]byte, 1000)); return err })
		})
	}))
	ts.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	ts.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		"h2": func(_ *http.Server, c *tls.Conn, _ http.Handler) {
			io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
			f := http2.NewFramer(c, c)
			f.WriteSettings()
			for {
				frame, err := f.ReadFrame()
				if err != nil {
					return
				}
				if d, ok := frame.(*http2.DataFrame); ok && d.StreamEnded() {
					f.WriteHeaders(http2.HeadersFrameParam{StreamID: d.StreamID, BlockFragment: []byte{0x88}, EndStream: true, EndHeaders: true})
					break
				}
			}
			handlers.Go(func() { // what it answers
				for {
					if _, err := f.ReadFrame(); err != nil {
						return
					}
					acks.Add(1)
				}
			})
			floods(c, func() error { return f.WritePing(false, [8]byte{}) })
		},
	}
	ts.StartTLS()
	defer ts.Close()
	defer handlers.Wait()
	rec := &receiver{Server: ts}
	box := newMemory(rec.endpoint("e"))
	running(t, quick(rec), box)
	box.commit("e", 1)
	box.drained(t, "e")
	over := make(chan struct{})
	go func() { ended.Wait(); close(over) }()
	select {
	case <-over:
	case <-time.After(4 * time.Second):
		t.Errorf("it is listened to, and has %d answers", acks.Load())
	}
}
