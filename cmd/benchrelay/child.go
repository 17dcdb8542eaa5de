//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"time"
)

// pipes are a connection between a child and its parent.
type pipes struct {
	io.Reader
	io.WriteCloser
}

// serveChild lets the parent call the methods of role until it closes its end, so that
// a child cannot outlive its parent.
func serveChild(conn io.ReadWriteCloser, role any) error {
	server := rpc.NewServer()
	if err := server.RegisterName("Child", role); err != nil {
		return err
	}
	server.ServeConn(conn)
	return nil
}

// child is this program again, in another role.
type child struct {
	role string
	cmd  *exec.Cmd
	conn *rpc.Client
}

func startChild(role string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, role)
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &child{role, cmd, rpc.NewClient(pipes{out, in})}, nil
}

// ask calls a method and waits for its answer; into may be nil.
func (c *child) ask(method string, with, into any) error {
	if into == nil {
		into = new(int)
	}
	if err := c.conn.Call("Child."+method, with, into); err != nil {
		return fmt.Errorf("%s: %w", c.role, err)
	}
	return nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// stop ends the child.
func (c *child) stop() {
	c.conn.Close()
	timer := time.AfterFunc(5*time.Second, func() { c.cmd.Process.Kill() })
	defer timer.Stop()
	c.cmd.Wait() // nobody asks how it ended
}
