package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"tlsrelay/relay/relaytest"
)

// terminal opens a pseudo-terminal (pty(7)): what is written to the far end comes
// out of the near one.
func terminal(t *testing.T) (near, far *os.File) {
	t.Helper()
	near, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	ask := func(request uintptr, number *int32) {
		t.Helper()
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, near.Fd(), request, uintptr(unsafe.Pointer(number))); errno != 0 {
			t.Fatal(errno)
		}
	}
	var locked, number int32
	ask(syscall.TIOCSPTLCK, &locked)
	ask(syscall.TIOCGPTN, &number)
	far, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return near, far
}

// A terminal is shown the first key, which is the one in the file.
func TestFirstKeyOnATerminal(t *testing.T) {
	c := worldConfig(t, relaytest.Start(t))
	near, far := terminal(t)
	cmd := exec.Command(os.Args[0], "serve", "--config", configFile(t, c))
	cmd.Env = []string{"TLSRELAY_TEST_RUN_MAIN=1", "GORACE=atexit_sleep_ms=0"}
	cmd.Stdout = far
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	far.Close()
	var mu sync.Mutex
	var shown bytes.Buffer
	read := make(chan struct{})
	go func() { // until the far end has no owner any more, which is an error
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, err := near.Read(buf)
			mu.Lock()
			shown.Write(buf[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	eventually(t, "the last of the lines to copy is there", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(shown.String(), `"version": 1.2`)
	})
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	<-read
	key, err := os.ReadFile(filepath.Join(c.DataDir, keyFile))
	if err != nil || len(key) < 20 || !strings.Contains(shown.String(), strings.TrimSpace(string(key))) {
		t.Errorf("%v; the terminal shows\n%s", err, shown.String())
	}
}
