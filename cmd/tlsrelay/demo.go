package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"tlsrelay/cmd/tlsrelay/demo"
	"tlsrelay/configs"
)

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "The whole story in one terminal: a relay, receiving hosts, DNS and a webhook receiver on loopback",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Minute)
			defer cancel()
			return demo.Play(ctx, cmd.OutOrStdout(), startForDemo)
		},
	}
}

// startForDemo starts a relay that has the given first key.
func startForDemo(ctx context.Context, c configs.Config, key string) (*demo.Relay, error) {
	a, err := newApp(c, zap.NewNop())
	if err != nil {
		return nil, err
	}
	given := map[string]string{"TLSRELAY_BOOTSTRAP_KEY": key}
	if _, err := bootstrap(ctx, a.store, c.DataDir, func(name string) string { return given[name] }); err != nil {
		return nil, errors.Join(err, a.close())
	}
	ctx, cancel := context.WithCancel(ctx)
	up, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- a.run(ctx, func() { close(up) }) }()
	<-up
	return &demo.Relay{
		API: a.api.addr(), Submission: a.submission.Addrs()[0].String(),
		Stop: func() error { cancel(); return <-ended },
	}, nil
}
