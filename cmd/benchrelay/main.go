//go:build linux

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	relay       string
	against     string
	dir         string
	run         *regexp.Regexp
	duration    time.Duration
	warm        time.Duration
	connections int
	repeat      int
	profile     string
	postfix     bool
	backlog     int
	tarpits     int
}

func main() {
	role := ""
	if len(os.Args) > 1 {
		role = os.Args[1]
	}
	var err error
	switch role {
	case "sink":
		err = serveChild(pipes{os.Stdin, os.Stdout}, newSink())
	case "generate":
		err = serveChild(pipes{os.Stdin, os.Stdout}, &generator{})
	default:
		err = parent()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchrelay:", err)
		os.Exit(1)
	}
}

func parent() error {
	o, err := parseFlags(os.Args[1:])
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return bench(ctx, o)
}

func parseFlags(args []string) (o options, err error) {
	f := flag.NewFlagSet("benchrelay", flag.ExitOnError)
	f.StringVar(&o.relay, "relay", "bin/tlsrelay", "the relay's program")
	f.StringVar(&o.against, "against", "", "another build of the relay to measure in turn with -relay, instead of the scenarios")
	f.StringVar(&o.dir, "dir", "", "where to keep queues and logs while running; default: the temporary folder. Its disk is the disk that is measured")
	run := f.String("run", ".", "only scenarios (scenario.go) whose name matches this expression")
	f.DurationVar(&o.duration, "d", 3*time.Second, "how long each measurement submits")
	f.DurationVar(&o.warm, "warm", time.Second, "how long to submit before each measurement")
	f.IntVar(&o.connections, "c", 20, "connections of the generator")
	f.IntVar(&o.repeat, "repeat", 1, "how often each scenario is measured; at least 3 turns where two relays take them")
	f.StringVar(&o.profile, "profile", "", "save a CPU profile of the relay over each measurement in this folder")
	f.BoolVar(&o.postfix, "postfix", false, "measure Postfix as well, if it is installed; needs root")
	f.IntVar(&o.backlog, "backlog", 0, "measure with so many messages queued for a dead destination, instead of the scenarios")
	f.IntVar(&o.tarpits, "tarpits", 0, "measure beside so many hosts that never answer, instead of the scenarios")
	f.Parse(args)
	if o.run, err = regexp.Compile(*run); err != nil {
		return o, fmt.Errorf("-run: %w", err)
	}
	if o.connections < 1 || o.repeat < 1 || o.backlog < 0 || o.tarpits < 0 || o.tarpits > maxTarpits {
		return o, fmt.Errorf("a number is out of range (at most %d tarpits)", maxTarpits)
	}
	return o, nil
}

// bench measures what was asked for and reports it.
func bench(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp(o.dir, "benchrelay-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o.dir = dir
	if o.postfix { // whose processes run as another user
		if err := os.Chmod(dir, 0o711); err != nil {
			return err
		}
	}
	r := &report{}
	switch {
	case o.against != "":
		err = measureBuilds(ctx, o, r)
	case o.backlog > 0:
		err = measureBacklog(ctx, o, r)
	case o.tarpits > 0:
		err = measureTarpits(ctx, o, r)
	default:
		err = measureScenarios(ctx, o, r)
	}
	r.finish(os.Stdout) // what was measured before a failure, too
	return err
}
