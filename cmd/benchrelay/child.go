//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// request is one line to a child: what to do, and with what.
type request struct {
	Op   string
	With json.RawMessage `json:",omitempty"`
}

// response is one line from a child.
type response struct {
	Error string          `json:",omitempty"`
	Value json.RawMessage `json:",omitempty"`
}

// serveChild answers requests until the parent closes the pipe; so a child
// cannot outlive its parent.
func serveChild(in io.Reader, out io.Writer, answer func(op string, with []byte) (any, error)) error {
	dec, w := json.NewDecoder(in), bufio.NewWriter(out)
	for {
		var q request
		if err := dec.Decode(&q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var a response
		v, err := answer(q.Op, q.With)
		if err == nil {
			a.Value, err = json.Marshal(v)
		}
		if err != nil {
			a.Error = err.Error()
		}
		if err := json.NewEncoder(w).Encode(a); err != nil {
			return err
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
}

// child is this program again, in another role.
type child struct {
	role string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *json.Decoder
}

func startChild(role string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &child{role, cmd, in, json.NewDecoder(out)}, nil
}

// ask makes one request and waits for the answer.
func (c *child) ask(op string, with, into any) error {
	text, err := json.Marshal(with)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(c.in).Encode(request{op, text}); err != nil {
		return fmt.Errorf("%s: %w", c.role, err)
	}
	var a response
	if err := c.out.Decode(&a); err != nil {
		return fmt.Errorf("%s has gone: %w", c.role, err)
	}
	if a.Error != "" {
		return fmt.Errorf("%s: %s", c.role, a.Error)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(a.Value, into)
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// stop ends the child.
func (c *child) stop() {
	c.in.Close()
	timer := time.AfterFunc(5*time.Second, func() { c.cmd.Process.Kill() })
	defer timer.Stop()
	c.cmd.Wait() // how it ended matters to nobody any more
}
