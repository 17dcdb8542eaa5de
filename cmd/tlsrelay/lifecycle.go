package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// part is one long-running part of the relay. run finishes what it has begun and returns
// when its context ends.
type part struct {
	name string
	run  func(ctx context.Context) error
}

// running is a set of started parts.
type running struct {
	stops  []func()
	failed chan error // gets the error of the first part that ended by itself
	errs   []error
	mu     sync.Mutex
}

// startParts starts parts in order. A part may use those before it until it has stopped.
func startParts(ctx context.Context, parts ...part) *running {
	r := &running{failed: make(chan error, 1)}
	for _, p := range parts {
		// Not a child of ctx, because stop stops the parts one by one.
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan struct{})
		go func() {
			defer close(done)
			err := p.run(own)
			if own.Err() == nil {
				r.report(fmt.Errorf("%s stopped by itself: %w", p.name, errors.Join(err, errStopped)))
			} else if err != nil && !errors.Is(err, context.Canceled) {
				r.report(fmt.Errorf("%s: %w", p.name, err))
			}
		}()
		r.stops = append(r.stops, func() { cancel(); <-done })
	}
	return r
}

var errStopped = errors.New("unexpected end")

func (r *running) report(err error) {
	r.mu.Lock()
	r.errs = append(r.errs, err)
	r.mu.Unlock()
	select {
	case r.failed <- err:
	default:
	}
}

// stop stops the parts in reverse order and returns their errors.
func (r *running) stop() error {
	for i := len(r.stops) - 1; i >= 0; i-- {
		r.stops[i]()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.errs...)
}

// runParts starts parts for a short task. The function that it returns stops them.
func runParts(ctx context.Context, parts ...part) (stop func()) {
	r := startParts(ctx, parts...)
	return func() { r.stop() }
}
