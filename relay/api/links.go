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
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	query := r.URL.Query()
	query.Del("limit")
	query.Del("offset")
	filters := query.Encode()
	if filters != "" {
		filters = "&" + filters
	}
	return scheme + "://" + r.Host + r.URL.EscapedPath() +
		"?limit=" + strconv.Itoa(limit) + "&offset=" + strconv.Itoa(offset) + filters
}
