//go:build linux

package main

import (
	"io"
	"time"
)

// delayLine passes writes on in order, each a fixed time after it was made. With it a host
// answers every command so much later, however many came at once.
type delayLine struct {
	delay time.Duration
	queue chan delayed
	ended chan struct{}
}

type delayed struct {
	at   time.Time
	text []byte
	done chan struct{} // not nil: closed when everything before it is written
}

// lineDepth bounds what one connection can have outstanding.
const lineDepth = 256

func newDelayLine(d time.Duration, w io.Writer) *delayLine {
	l := &delayLine{delay: d, queue: make(chan delayed, lineDepth), ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		var failed error
		for item := range l.queue {
			time.Sleep(time.Until(item.at))
			if failed == nil && len(item.text) > 0 {
				_, failed = w.Write(item.text) // the reader of the connection notices, too
			}
			if item.done != nil {
				close(item.done)
			}
		}
	}()
	return l
}

// Write implements io.Writer.
func (l *delayLine) Write(b []byte) (int, error) {
	l.queue <- delayed{at: time.Now().Add(l.delay), text: append([]byte(nil), b...)}
	return len(b), nil
}

// drain waits until all is written.
func (l *delayLine) drain() {
	done := make(chan struct{})
	l.queue <- delayed{done: done}
	<-done
}

// close writes what is left and ends the line.
func (l *delayLine) close() {
	close(l.queue)
	<-l.ended
}
