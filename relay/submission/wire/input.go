package wire

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// maxLine bounds a command line. RFC 4954 §4 asks for 12,288 octets for AUTH;
// nothing else comes near.
const maxLine = 12288

// Sizes of the input buffer: while waiting for a command there may be
// thousands of connections, while content comes in there are few.
const (
	smallInput = 2 << 10
	largeInput = 32 << 10
)

var errLineTooLong = errors.New("command line too long")

var largeInputs = sync.Pool{New: func() any { return new([largeInput]byte) }}

// input holds what was read from a client and not yet used.
type input struct {
	src   io.Reader
	small []byte
	large *[largeInput]byte // borrowed while content comes in
	buf   []byte            // one of the two
	r, w  int
}

func (in *input) window() []byte { return in.buf[in.r:in.w] }
func (in *input) buffered() int  { return in.w - in.r }
func (in *input) use(n int)      { in.r += n }

// grow makes room for content.
func (in *input) grow() {
	if in.large != nil {
		return
	}
	in.large = largeInputs.Get().(*[largeInput]byte)
	n := copy(in.large[:], in.window())
	in.buf, in.r, in.w = in.large[:], 0, n
}

// shrink gives an empty large buffer back.
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

// line takes a line with its end, if a whole one is buffered. It stays valid
// until the next fill.
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
