package rest

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Number reads an integer of the query between low and high; it is def when
// absent.
func (r *Request) Number(name string, def, low, high int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < low || n > high {
		return 0, InvalidField(name, name+" must be an integer from "+
			strconv.FormatInt(low, 10)+" to "+strconv.FormatInt(high, 10))
	}
	return n, nil
}

// Bool reads true or false of the query; false when absent. Some languages write True.
func (r *Request) Bool(name string) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, InvalidField(name, name+" must be a boolean")
	}
	return b, nil
}

// LastSecond ends the year 9999. Scripts write later times for "no end", and a time
// cannot have them all.
const LastSecond = 253402300799

// Second reads a time of the query in Unix seconds; zero when absent.
func (r *Request) Second(name string) (time.Time, error) {
	n, err := r.Number(name, -1, 0, math.MaxInt64)
	if err != nil || n < 0 {
		return time.Time{}, err
	}
	return time.Unix(min(n, LastSecond), 0), nil
}

// NoLimit is the highest limit and offset of a page.
const NoLimit = 1<<31 - 1

// Page reads limit, def when absent and from low to most, and offset.
func (r *Request) Page(def, low, most int64) (limit, offset int, err error) {
	l, err := r.Number("limit", def, low, most)
	if err != nil {
		return 0, 0, err
	}
	o, err := r.Number("offset", 0, 0, NoLimit)
	return int(l), int(o), err
}

// Cut gives the part of a list that a page shows.
func Cut[T any](all []T, limit, offset int) []T {
	offset = min(offset, len(all))
	return all[offset:min(offset+limit, len(all))]
}

// Remaining is the header that says how many rows there are behind those of the
// answer to an operator. Link (RFC 8288) has where they are.
const Remaining = "X-Remaining"

// TellRemaining writes the header. next is what to ask for to go on, beside what was
// asked.
func (r *Request) TellRemaining(more int, next url.Values) {
	r.W.Header().Set(Remaining, strconv.Itoa(more))
	if more == 0 || next == nil {
		return
	}
	q := r.URL.Query()
	for name, value := range next {
		q[name] = value
	}
	r.W.Header().Set("Link", "<"+r.URL.Path+"?"+q.Encode()+`>; rel="next"`)
}

// TellPages writes the Link header of a page: next and prev where there are such
// pages, last, first, each with its page number as title. It keeps the filters of the
// request.
func (r *Request) TellPages(limit, offset, total int) {
	if total == 0 {
		return
	}
	page, pages := offset/limit+1, (total+limit-1)/limit
	var links []string
	add := func(rel string, offset, title int) {
		links = append(links, fmt.Sprintf(`<%s>; rel="%s"; title="%d"`, pageURL(r.Request, limit, offset), rel, title))
	}
	if offset+limit < total {
		add("next", offset+limit, page+1)
	}
	if offset > 0 {
		add("prev", max(0, offset-limit), max(1, page-1))
	}
	add("last", (pages-1)*limit, pages)
	add("first", 0, 1)
	r.W.Header().Set("Link", strings.Join(links, ", "))
}

// pageURL is the absolute URL of another page, with limit and offset where
// SendGrid has them: first.
func pageURL(r *http.Request, limit, offset int) string {
	query := r.URL.Query()
	query.Del("limit")
	query.Del("offset")
	filters := query.Encode()
	if filters != "" {
		filters = "&" + filters
	}
	return scheme(r) + "://" + r.Host + r.URL.EscapedPath() +
		"?limit=" + strconv.Itoa(limit) + "&offset=" + strconv.Itoa(offset) + filters
}

// scheme is what the client asked with. Behind a proxy that ends TLS only a
// header of the proxy says so (RFC 7239 §5.4, and the header before it). It believes
// anybody: the answer goes to whoever sent the header, and no cache keeps it. The host
// is the one asked for, and never a header's.
func scheme(r *http.Request) string {
	if r.TLS != nil || isHTTPS(r.Header.Get("X-Forwarded-Proto")) {
		return "https"
	}
	// The first element is of the proxy that the client spoke to.
	first, _, _ := strings.Cut(r.Header.Get("Forwarded"), ",")
	for pair := range strings.SplitSeq(first, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if strings.EqualFold(name, "proto") && isHTTPS(strings.Trim(value, `"`)) {
			return "https"
		}
	}
	return "http"
}

// isHTTPS reads the first of several values, as of proxies behind one another.
func isHTTPS(values string) bool {
	first, _, _ := strings.Cut(values, ",")
	return strings.EqualFold(strings.TrimSpace(first), "https")
}
