package relaytest

import (
	"context"
	"time"
)

// TB is what is needed of a testing.TB. The package does not import testing,
// for `tlsrelay demo` links it.
type TB interface {
	Helper()
	Fatal(args ...any)
	Cleanup(func())
}

// Patience bounds every wait of the helpers below.
const Patience = 20 * time.Second

// Start makes a world that ends with the test.
func Start(t TB) *World {
	t.Helper()
	w, err := NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// Host is AddHost for tests.
func (w *World) Host(t TB, name string, scripts ...Script) *Host {
	t.Helper()
	h, err := w.AddHost(name, scripts...)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Await waits for n messages in all and gives those the host kept.
func (h *Host) Await(t TB, n int) []Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	m, err := h.Wait(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// StartReceiver makes a receiver that ends with the test.
func StartReceiver(t TB, answers ...Response) *Receiver {
	t.Helper()
	r, err := NewReceiver(answers...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// Await waits for n requests in all.
func (r *Receiver) Await(t TB, n int) []Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	q, err := r.Wait(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	return q
}
