//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// measureSyncs measures the headline scenario once more with strace counting
// the syncs. Only that number is of use then: strace slows everything down.
func measureSyncs(ctx context.Context, o options, rep *report) (err error) {
	for _, s := range scenarios() {
		if s.Name != headline {
			continue
		}
		g, err := newRig(o, s.world())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, g.close()) }()
		if err := errors.Join(g.startRelay(ctx), g.open(s)); err != nil {
			return err
		}
		if _, _, err := g.burst(runSpec{Duration: o.warm}); err != nil {
			return err
		}
		return g.traced(s, rep)
	}
	return nil
}

func (g *rig) traced(s scenario, rep *report) error {
	out := filepath.Join(g.o.dir, "strace")
	pid := g.subject.(*relayProcess).pid()
	cmd := exec.Command("strace", "-f", "-c", "-o", out, "-e", "trace=fsync,fdatasync,sync_file_range", "-p", strconv.Itoa(pid))
	if err := cmd.Start(); err != nil {
		return err
	}
	_, got, err := g.burst(runSpec{Duration: g.o.duration})
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait() // reports the signal
	if err != nil {
		return err
	}
	text, err := os.ReadFile(out)
	if err != nil {
		return fmt.Errorf("strace: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		// "% time, seconds, usecs/call, calls, [errors,] syscall"
		f := strings.Fields(line)
		if len(f) < 5 || !strings.Contains(f[len(f)-1], "sync") {
			continue
		}
		if n, err := strconv.ParseFloat(f[3], 64); err == nil {
			rep.fact(s.Name+": "+f[len(f)-1]+" per message, by strace", n/float64(max(1, got.Got)), "")
		}
	}
	return nil
}
