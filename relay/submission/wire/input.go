package wire

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// maxLine is the longest command line, in octets. RFC 4954 §4 asks for 12,288
// for AUTH; no other command needs as many.
const maxLine = 12288

// Sizes of the input buffer, in octets. Thousands of connections may wait for a
// command at a time; few receive content.
const (
	smallInput = 2 << 10
	largeInput = 32 << 10
)

var errLineTooLong = errors.New("command line too long")

var largeInputs = sync.Pool{New: func() any { return new([largeInput]byte) }}

// input is what was read from a client and is not used yet.
type input struct {
	src   io.Reader
	small []byte
	large *[largeInput]byte // from largeInputs, while content comes in
	buf   []byte            // one of the two
	r, w  int
}

func (in *input) window() []byte { return in.buf[in.r:in.w] }
func (in *input) buffered() int  { return in.w - in.r }
func (in *input) use(n int)      { in.r += n }

// grow changes to the large buffer.
func (in *input) grow() {
	if in.large != nil {
		return
	}
	in.large = largeInputs.Get().(*[largeInput]byte)
	n := copy(in.large[:], in.window())
	in.buf, in.r, in.w = in.large[:], 0, n
}

// shrink changes back to the small buffer, if nothing is buffered.
func (in *input) shrink() {
	if in.buffered() > 0 {
		return
	}
	if in.large != nil {
		largeInputs.Put(in.large)
		in.large, in.buf = nil, in.small
	}
	in.r, in.w = 0, 0
}

// fill reads once, behind what is buffered.
func (in *input) fill() error {
	if in.buf == nil {
		in.small = make([]byte, smallInput)
		in.buf = in.small
	}
	if in.r > 0 {
		in.w = copy(in.buf, in.window())
		in.r = 0
	}
	if in.w == len(in.buf) {
		in.grow()
	}
	n, err := in.src.Read(in.buf[in.w:])
	in.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// line returns the next line with its line end; ok is false if it is not whole
// yet. The line is valid until the next fill.
func (in *input) line() (line []byte, ok bool, err error) {
	w := in.window()
	i := bytes.IndexByte(w[:min(len(w), maxLine)], '\n')
	if i < 0 {
		if len(w) >= maxLine {
			return nil, false, errLineTooLong
		}
		return nil, false, nil
	}
	in.use(i + 1)
	return w[:i+1], true, nil
}
