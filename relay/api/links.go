package api

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// pageLinks is the Link header of a page (contract §6): next and prev where
// there are such pages, last, first, each with its page number as title. It
// keeps the filters of the request.
func pageLinks(r *http.Request, limit, offset, total int) string {
	if total == 0 {
		return ""
	}
	page, pages := offset/limit+1, (total+limit-1)/limit
	var links []string
	add := func(rel string, offset, title int) {
		links = append(links, fmt.Sprintf(`<%s>; rel="%s"; title="%d"`, pageURL(r, limit, offset), rel, title))
	}
	if offset+limit < total {
		add("next", offset+limit, page+1)
	}
	if offset > 0 {
		add("prev", max(0, offset-limit), max(1, page-1))
	}
	add("last", (pages-1)*limit, pages)
	add("first", 0, 1)
	return strings.Join(links, ", ")
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

// scheme is what the client asked with. Behind a proxy that ends TLS only the
// proxy's word says so (RFC 7239 §5.4, and the header before it). Anybody is
// believed, for the answer goes to whoever said it and is kept by no cache; the
// host is the one asked for, and never a header's.
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
