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
	full        bool
	duration    time.Duration
	warm        time.Duration
	connections int
	repeat      int
	bdat        bool
	profile     string
	strace      bool

	postfix      bool
	postfixReuse bool

	backlog int
	tarpits int

	json  string
	bench bool
}

func main() {
	if len(os.Args) > 1 {
		var err error
		switch os.Args[1] {
		case "sink":
			err = serveChild(os.Stdin, os.Stdout, newSink().answer)
		case "generate":
			err = serveChild(os.Stdin, os.Stdout, (&generator{}).answer)
		default:
			parent()
			return
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, os.Args[1]+":", err)
			os.Exit(1)
		}
		return
	}
	parent()
}

func parent() {
	o, err := parseFlags(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchrelay:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "benchrelay:", err)
		os.Exit(1)
	}
}

func parseFlags(args []string) (o options, err error) {
	f := flag.NewFlagSet("benchrelay", flag.ContinueOnError)
	f.StringVar(&o.relay, "relay", "bin/tlsrelay", "the relay's program")
	f.StringVar(&o.against, "against", "", "another build of the relay to measure in turn with -relay, instead of the scenarios")
	f.StringVar(&o.dir, "dir", "", "where to keep queues and logs while running; default: the temporary folder. Its disk is the disk that is measured")
	run := f.String("run", ".", "only scenarios whose name matches this expression")
	list := f.Bool("list", false, "list the scenarios and end")
	f.BoolVar(&o.full, "full", false, "15 s for each measurement instead of 3 s")
	f.DurationVar(&o.duration, "d", 0, "how long each measurement submits; overrides -full")
	f.DurationVar(&o.warm, "warm", time.Second, "how long to submit before each measurement")
	f.IntVar(&o.connections, "c", 20, "connections of the generator")
	f.IntVar(&o.repeat, "repeat", 1, "how often each scenario is measured; at least 3 turns where two relays take them")
	f.BoolVar(&o.bdat, "bdat", false, "submit with BDAT instead of DATA")
	f.StringVar(&o.profile, "profile", "", "save a CPU profile of the relay over each measurement in this folder")
	f.BoolVar(&o.strace, "strace", false, "measure once more under strace to count the syncs (headline scenario)")
	f.BoolVar(&o.postfix, "postfix", false, "measure Postfix as well, if it is installed; needs root")
	f.BoolVar(&o.postfixReuse, "postfix-reuse", true, "let Postfix reuse TLS connections, which is not its default")
	f.IntVar(&o.backlog, "backlog", 0, "measure with so many messages queued for a dead destination, instead of the scenarios")
	f.IntVar(&o.tarpits, "tarpits", 0, "measure beside so many hosts that never answer, instead of the scenarios")
	f.StringVar(&o.json, "json", "", "write the results as JSON to this file; -: to standard output, instead of the table")
	f.BoolVar(&o.bench, "bench", false, "print lines that benchstat reads, too")
	if err := f.Parse(args); err != nil {
		os.Exit(2) // the flag set has said why
	}
	if o.run, err = regexp.Compile(*run); err != nil {
		return o, fmt.Errorf("-run: %w", err)
	}
	if *list {
		for _, s := range scenarios() {
			fmt.Println(s.Name)
		}
		os.Exit(0)
	}
	if o.duration == 0 {
		o.duration = 3 * time.Second
		if o.full {
			o.duration = 15 * time.Second
		}
	}
	switch {
	case o.connections < 1 || o.repeat < 1 || o.backlog < 0 || o.tarpits < 0 || o.tarpits > maxTarpits:
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
	r := &report{o: o}
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
	if err2 := r.finish(os.Stdout); err == nil {
		err = err2 // what was measured before a failure is shown all the same
	}
	return err
}
