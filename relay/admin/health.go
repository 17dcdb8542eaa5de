package admin

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"

	"tlsrelay/relay/api/rest"
)

// Readiness is whether mail is taken, part by part. Its texts go to anybody who asks,
// with a token or without.
type Readiness struct {
	// Troubles says for each part, by name, why it does not work; "": it works.
	Troubles map[string]string
	// DNSSEC is "on", or "off" and why. Mail is taken either way.
	DNSSEC string
}

// Ready reports whether every part does its work.
func (r Readiness) Ready() bool { return len(r.troubled()) == 0 }

// troubled names the parts that do not do their work.
func (r Readiness) troubled() []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(r.Troubles)) {
		if r.Troubles[name] != "" {
			names = append(names, name)
		}
	}
	return names
}

func (s *server) healthy(w http.ResponseWriter, _ *http.Request) {
	rest.Reply(w, http.StatusOK, map[string]string{"status": "alive"})
}

func (s *server) ready(w http.ResponseWriter, _ *http.Request) {
	r := s.Ready()
	body := map[string]string{"status": "ready", "dnssec": r.DNSSEC}
	for name, trouble := range r.Troubles {
		body[name] = "ok"
		if trouble != "" {
			body[name] = trouble
		}
	}
	bad := strings.Join(r.troubled(), ", ")
	switch changed := s.told.changes(bad); {
	case changed && bad != "":
		s.Log.Warn("not ready", zap.Any("parts", body))
	case changed:
		s.Log.Info("ready again")
	}
	if bad != "" {
		body["status"], body["error"] = "not ready", "not ready: "+bad
		rest.Reply(w, http.StatusServiceUnavailable, body)
		return
	}
	rest.Reply(w, http.StatusOK, body)
}

// told is what the log has said last about the readiness: probes ask every few
// seconds, and the log hears of changes only.
type told struct {
	mu   sync.Mutex
	last string
}

// changes notes what is to be said and reports whether it is new.
func (t *told) changes(now string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	changed := t.last != now
	t.last = now
	return changed
}
