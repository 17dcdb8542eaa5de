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
	"golang.org/x/term"

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
		config, warnings, err := loadConfig(*file)
		if err != nil {
			return err
		}
		return serve(cmd.Context(), config, warnings)
	}
	return c
}

// loadConfig loads a configuration. If it cannot be used, loadConfig prints all of its
// faults, and the error ends the program with the usage code.
func loadConfig(file string) (c configs.Config, warnings configs.Faults, err error) {
	c, warnings, err = configs.Inspect(file, os.Environ())
	var faults configs.Faults
	if errors.As(err, &faults) {
		fmt.Fprintln(os.Stderr, faults)
		return c, nil, exitError{exitUsage}
	}
	return c, warnings, err
}

// gcPercent keeps the heap small. Most of it are the buffers and the cache of the store,
// which stay. At its default the collector would let the same amount of garbage gather
// beside them. Half of that costs some 3 % of the CPU. GOGC in the environment overrides
// it.
const gcPercent = 50

// diskWaits is how many more goroutines may run than there are CPUs. A goroutine that
// waits for the disk keeps its place until the scheduler takes it away, and the log of the
// store is synced most of the time. With two places on two CPUs a sync would leave all
// other work to one. GOMAXPROCS in the environment overrides it. The quota of a container
// is read once, at the start.
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
func serve(ctx context.Context, c configs.Config, warnings configs.Faults) error {
	tuneRuntime()
	// When the reader of the log goes away, only the log ends.
	signal.Ignore(syscall.SIGPIPE)
	// SIGHUP is caught until the end of serve, because by default it ends the process.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	log, stopLog, err := newLogger(c.Log, zapcore.Lock(os.Stderr))
	if err != nil {
		return err
	}
	defer stopLog()
	for _, w := range warnings {
		log.Warn("configuration: "+w.Text, zap.String("key", w.Key), zap.String("file", w.File), zap.Int("line", w.Line))
	}
	a, err := begin(ctx, c, log)
	if err != nil {
		return err
	}
	untold := context.AfterFunc(ctx, func() { daemon.SdNotify(false, daemon.SdNotifyStopping) })
	defer untold()
	err = a.run(ctx, func() {
		log.Info("ready",
			zap.Stringers("submission", a.submission.Addrs()), zap.Stringers("submission_tls", a.submission.AddrsTLS()), zap.String("api", a.api.addr()), zap.String("admin", a.admin.addr()),
			zap.String("hostname", c.Hostname), zap.String("version", buildVersion))
		daemon.SdNotify(false, daemon.SdNotifyReady)
		go watchdog(ctx, a)
		go heed(ctx, hangups, a)
	})
	if err != nil {
		log.Error("stopped, after a failure", zap.Error(err))
	} else {
		log.Info("stopped")
	}
	return err
}

// begin builds a relay. At the very first start it prints what to do next.
func begin(ctx context.Context, c configs.Config, log *zap.Logger) (*app, error) {
	a, err := newApp(c, log)
	if err != nil {
		return nil, err
	}
	first, err := bootstrap(ctx, a.store, c.DataDir, os.Getenv)
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	if first.Secret != "" {
		fmt.Println(first.welcome(a, term.IsTerminal(int(os.Stdout.Fd()))))
	}
	return a, nil
}

// heed reads the certificates again at each SIGHUP, until ctx ends.
func heed(ctx context.Context, hangups <-chan os.Signal, a *app) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			a.rereadCertificates()
		}
	}
}

// watchdog tells systemd that the relay is alive while its queue responds, twice in every
// interval that the unit sets. A store that cannot write is no reason to kill the process:
// outcomes wait for it in memory, and a new process would have the same disk. /readyz
// reports it.
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
