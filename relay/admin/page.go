package admin

import (
	_ "embed"
	"html/template"
	"net/http"
	"time"

	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/relay"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"text": events.Printable, // of strangers; the template escapes what HTML would obey, and that alone
	"ago": func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return time.Since(t).Round(time.Second).String()
	},
}).Parse(pageText))

// pageView is what the web page shows: is it well, and what waits where.
type pageView struct {
	Ready bool
	Parts map[string]string // Readiness.Troubles
	Queue []relay.QueueRow
	More  int // destinations that are not in it
	Now   time.Time
}

func (s *server) page(w http.ResponseWriter, r *http.Request) {
	rows, more, err := s.Store.Overview(r.Context(), time.Now(), "", 0)
	if err != nil {
		s.Log.Error("the queue cannot be read for the web page", zap.Error(err))
	}
	// The page needs nothing but its own style: no script, no other origin.
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	ready := s.Ready()
	view := pageView{Ready: err == nil && ready.Ready(), Parts: ready.Troubles, Queue: rows, More: more, Now: time.Now().UTC()}
	if err := pageTemplate.Execute(w, view); err != nil {
		s.Log.Debug("the web page was not delivered", zap.Error(err))
	}
}
