package main

import (
	"slices"

	"go.uber.org/zap"

	"tlsrelay/configs"
)

// descriptors are the bounds of connections, each of which is an open file. Together they
// must fit the files that the process may open. Otherwise one part that reaches its bound
// leaves no files to the others, the store included. A body that is too large for memory
// has a file of its own, on its way in and on its way out.
type descriptors struct {
	submission, delivery int
	http                 int // at each of the two listeners
}

// maxHTTP is how many connections an HTTP listener has at a time.
const maxHTTP = 2000

// otherFiles is how many files everything else may have open: the tables of the store,
// lookups, webhooks.
const otherFiles = 1500

// files is how many files all of them have open at most.
func (d descriptors) files() int { return 2*(d.submission+d.delivery) + 2*d.http }

// within returns bounds that fit limit open files. If the wanted ones do not, the small
// ones stay as they are, and the large ones share what is left; up to a quarter of the
// files is for everything else. limit 0: it is not known.
func (want descriptors) within(limit int) descriptors {
	if limit <= 0 || want.files()+otherFiles <= limit {
		return want
	}
	room := (limit - min(otherFiles, limit/4)) / 2 // each of a bound is two files
	bounds := []*int{&want.submission, &want.delivery, &want.http}
	slices.SortFunc(bounds, func(a, b *int) int { return *a - *b })
	for i, b := range bounds {
		*b = max(1, min(*b, room/(len(bounds)-i)))
		room -= *b
	}
	return want
}

// fitted returns c with bounds of connections that fit the files that the process may
// open, and the bound of each HTTP listener.
func fitted(c configs.Config, limit int, log *zap.Logger) (configs.Config, int) {
	want := descriptors{c.Submission.MaxConnections, c.Delivery.MaxConnections, maxHTTP}
	got := want.within(limit)
	if got != want {
		log.Warn("the process may open fewer files than it may have connections: there will be fewer (LimitNOFILE, ulimit -n)",
			zap.Int("open_files", limit), zap.Int("wanted", want.files()+otherFiles),
			zap.Int("submission.max_connections", got.submission), zap.Int("delivery.max_connections", got.delivery),
			zap.Int("http_connections", got.http))
	}
	c.Submission.MaxConnections, c.Delivery.MaxConnections = got.submission, got.delivery
	return c, got.http
}
