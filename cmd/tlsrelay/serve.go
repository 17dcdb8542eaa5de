package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"tlsrelay/configs"
)

func serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the relay in the foreground; SIGTERM drains and stops",
		Args:  exactly(),
	}
	file := c.Flags().String("config", "", "configuration file; default: the built-in defaults and the environment")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := loadConfig(*file)
		if err != nil {
			return err
		}
		return serve(cmd.Context(), config)
	}
	return c
}

// loadConfig loads a configuration; one that cannot be used is told whole and
// ends the program with the usage code.
func loadConfig(file string) (configs.Config, error) {
	c, err := configs.Load(file, os.Environ())
	var faults configs.Faults
	if errors.As(err, &faults) {
		fmt.Fprintln(os.Stderr, faults)
		return c, exitError{exitUsage}
	}
	return c, err
}

// gcPercent keeps the heap small. The store's buffers and cache are most of
// it and never change, so that a collector at its default would let as much
// garbage again stand beside them; at half of that it costs some 3 % of the
// CPU. GOGC in the environment stands above it.
const gcPercent = 50

// diskWaits is how many more goroutines than there are CPUs may run. One that
// waits for the disk keeps its place until the scheduler takes it away, and the
// log of the store is synced most of the time: on two CPUs, a sync under way
// would leave all other work to one of them. GOMAXPROCS in the environment stands
// above it. A container's quota is looked at once: a later change is not followed.
const diskWaits = 2

// tuneRuntime adapts the Go runtime to this program.
func tuneRuntime() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + diskWaits)
	}
}

// serve runs the relay until ctx ends.
func serve(ctx context.Context, c configs.Config) error {
	tuneRuntime()
	// Whoever reads the log may go away; that ends nothing but the log.
	signal.Ignore(syscall.SIGPIPE)
	log, stopLog, err := newLogger(c.Log, zapcore.Lock(os.Stderr))
	if err != nil {
		return err
	}
	defer stopLog()
	a, err := newApp(c, log)
	if err != nil {
		return err
	}
	first, err := bootstrap(ctx, a.store, os.Getenv)
	if err != nil {
		return errors.Join(err, a.close())
	}
	if first.Secret != "" {
		fmt.Println(first.welcome(a))
	}
	untold := context.AfterFunc(ctx, func() { daemon.SdNotify(false, daemon.SdNotifyStopping) })
	defer untold()
	return a.run(ctx, func() {
		log.Info("ready",
			zap.Stringers("submission", a.submission.Addrs()), zap.Stringers("submission_tls", a.submission.AddrsTLS()), zap.String("api", a.api.addr()), zap.String("admin", a.admin.addr()),
			zap.String("hostname", hostname(c)), zap.String("version", buildVersion))
		daemon.SdNotify(false, daemon.SdNotifyReady)
		go watchdog(ctx, a)
	})
}

// watchdog tells systemd that the relay is alive for as long as its queue is,
// twice in every interval that the unit asks for. A store that cannot write is
// no reason to be killed: outcomes wait in memory for it, and a new process would
// not have a better disk. /readyz tells of it.
func watchdog(ctx context.Context, a *app) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if a.queue.Responds() {
				daemon.SdNotify(false, daemon.SdNotifyWatchdog)
			}
		}
	}
}
