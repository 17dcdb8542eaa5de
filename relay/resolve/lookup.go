package resolve

import (
	"context"
	"time"

	"github.com/miekg/dns"
)

// lookup answers q from the cache or by asking, one question of a kind in
// flight at a time. An alias that the resolver did not follow is followed
// here. ctx bounds the waiting, not the question itself: others may be
// waiting for it as well.
func (r *Resolver) lookup(ctx context.Context, q question) answer {
	if a, ok := r.answers.Get(q, r.now()); ok {
		r.metrics.hits.Inc()
		return a
	}
	r.metrics.misses.Inc()
	ch := r.asking.DoChan(q.name+dns.TypeToString[q.qtype], func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.o.Timeout)
		defer cancel()
		a := r.chase(ctx, q)
		now := r.now()
		a.expires = now.Add(a.ttl)
		r.answers.Put(q, a, now, a.expires)
		return a, nil
	})
	select {
	case done := <-ch:
		return done.Val.(answer)
	case <-ctx.Done():
		a := troubled(unanswered, "no time left")
		a.expires = r.now()
		return a
	}
}

// chase asks q, and on along aliases.
func (r *Resolver) chase(ctx context.Context, q question) answer {
	whole := answer{authentic: true, ttl: maxTTL}
	for range maxChain {
		a := r.ask(ctx, q)
		a.authentic = a.authentic && whole.authentic
		a.ttl = min(a.ttl, whole.ttl)
		if a.outcome != aliasOnly {
			return a
		}
		whole = a
		q.name = a.name
	}
	return troubled(failed, "chain of aliases too long")
}

// ask asks q itself, and counts.
func (r *Resolver) ask(ctx context.Context, q question) answer {
	begin := time.Now()
	a := r.asker.ask(ctx, q)
	r.metrics.asked(q.qtype, a.outcome, time.Since(begin))
	return a
}
