package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"tlsrelay/events"
	"tlsrelay/relay/api/rest"
)

// client speaks to the operator's listener of a running relay.
type client struct {
	base  string
	token string
	out   io.Writer
	err   io.Writer
	json  bool // print replies as they came
}

// remote makes a command that speaks to a running relay: it adds the flags
// that say which one and how to print.
func remote(c *cobra.Command, do func(ctx context.Context, cl *client, args []string) error) *cobra.Command {
	base := c.Flags().String("admin", cmp.Or(os.Getenv("TLSRELAY_ADMIN_URL"), "http://127.0.0.1:8026"), "operator's listener of the relay (TLSRELAY_ADMIN_URL)")
	asJSON := c.Flags().Bool("json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		return do(cmd.Context(), &client{strings.TrimSuffix(*base, "/"), adminToken(), cmd.OutOrStdout(), cmd.ErrOrStderr(), *asJSON}, args)
	}
	return c
}

// adminToken is the token of the operator's listener, from the same variables
// that the server reads.
func adminToken() string {
	if file := os.Getenv("TLSRELAY_ADMIN_TOKEN_FILE"); file != "" {
		if text, err := os.ReadFile(file); err == nil {
			return strings.TrimSpace(string(text))
		}
	}
	return os.Getenv("TLSRELAY_ADMIN_TOKEN")
}

// call makes one request and decodes the reply into out, unless it is nil.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	_, err := c.ask(ctx, method, path, in, out)
	return err
}

// list gets a part of a list into out and says how many rows there are behind it.
func (c *client) list(ctx context.Context, path string, query url.Values, out any) (more int, err error) {
	header, err := c.ask(ctx, http.MethodGet, path+"?"+query.Encode(), nil, out)
	if err == nil {
		more, _ = strconv.Atoi(header.Get(rest.Remaining))
	}
	return more, err
}

// ask is call, and gives the header of the reply.
func (c *client) ask(ctx context.Context, method, path string, in, out any) (http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // a check dials every host in turn
	defer cancel()
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, usage("--admin: not a URL: %s", c.base)
	}
	if method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := http.DefaultClient.Do(req)
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return nil, fmt.Errorf("the certificate at %s is not trusted here: %s", c.base, events.Printable(untrusted.Err.Error()))
	}
	if err != nil {
		return nil, fmt.Errorf("no relay answers at %s (is it running? --admin or TLSRELAY_ADMIN_URL says where)", c.base)
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		return nil, refusal(res)
	}
	if out == nil {
		return res.Header, nil
	}
	return res.Header, json.NewDecoder(res.Body).Decode(out)
}

// parameter gives the name of a flag as the calls have it.
func parameter(flag string) string { return strings.ReplaceAll(flag, "-", "_") }

func refusal(res *http.Response) error {
	var problem struct {
		Error string `json:"error"`
	}
	if json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&problem) != nil || problem.Error == "" {
		return fmt.Errorf("the relay answered %s", res.Status)
	}
	return errors.New(events.Printable(problem.Error))
}

// show prints v as JSON when asked to, else by the given function.
func (c *client) show(v any, text func(w io.Writer)) error {
	if c.json {
		return printJSON(c.out, v)
	}
	tw := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	text(tw)
	return tw.Flush()
}

// say prints for people. What is not a number may be a stranger's words, and is
// cleaned: a tab in them would move the columns of a table, too.
func say(w io.Writer, format string, args ...any) {
	for i, a := range args {
		switch v := reflect.ValueOf(a); {
		case v.Kind() == reflect.String, v.IsValid() && v.Type().Implements(stringer):
			args[i] = events.Printable(fmt.Sprint(a))
		}
	}
	fmt.Fprintf(w, format, args...)
}

var stringer = reflect.TypeFor[fmt.Stringer]()

// printJSON prints for programs: hidden characters are there, but escaped, for who
// looks at it in a terminal.
func printJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	var out strings.Builder
	for _, r := range b.String() {
		switch hi, lo := utf16.EncodeRune(r); {
		case r == '\n' || !events.Hidden(r):
			out.WriteRune(r)
		case hi != utf8.RuneError:
			fmt.Fprintf(&out, `\u%04x\u%04x`, hi, lo) // RFC 8259 §7
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}
