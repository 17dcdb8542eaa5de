package api

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"

	"tlsrelay/policy/account"
	"tlsrelay/relay/api/rest"
)

// The forms in which a subuser is shown.
type (
	subuserView struct {
		Disabled bool   `json:"disabled"`
		ID       int64  `json:"id"`
		Username string `json:"username"`
		Email    string `json:"email"`
		Region   string `json:"region,omitempty"` // where include_region asks for it
	}
	newSubuserView struct {
		Username string     `json:"username"`
		UserID   int64      `json:"user_id"`
		Email    string     `json:"email"`
		Region   string     `json:"region,omitempty"`
		Credits  allocation `json:"credit_allocation"`
	}
	allocation struct {
		Type string `json:"type"`
	}
	subuserIPsView struct {
		IPs []string `json:"ips"`
	}
)

func viewSubuser(a account.Account) subuserView {
	return subuserView{Disabled: a.Disabled, ID: numericID(a), Username: a.Username, Email: a.Email}
}

// theRegion is the one region that this relay has: SendGrid's name for no region in
// particular.
const theRegion = "global"

// queryRegion reads region and include_region of a query, and gives what to
// show.
func queryRegion(r *rest.Request) (shown string, err error) {
	if region := r.URL.Query().Get("region"); region != "" && region != theRegion && region != "all" {
		return "", rest.InvalidField("region", badRegion)
	}
	include, err := r.Bool("include_region")
	if include {
		shown = theRegion
	}
	return shown, err
}

const badRegion = "region must be " + theRegion + ": this relay has no other"

func numericID(a account.Account) int64 {
	n, err := strconv.ParseInt(string(a.ID), 10, 64)
	if err != nil {
		return 0 // ids are decimal; anything else is another program's
	}
	return n
}

// parents is a call for the account that has subusers.
func parents(call rest.Call) rest.Call {
	return func(r *rest.Request) (any, error) {
		if r.On.Kind != account.KindParent {
			return nil, rest.FaultOf(http.StatusForbidden)
		}
		return call(r)
	}
}

func (s *server) listSubusers(r *rest.Request) (any, error) {
	limit, offset, err := r.Page(rest.NoLimit, 1, rest.NoLimit)
	if err != nil {
		return nil, err
	}
	region, err := queryRegion(r)
	if err != nil {
		return nil, err
	}
	all, err := s.Accounts.Accounts(r.Context())
	if err != nil {
		return nil, err
	}
	name := r.URL.Query().Get("username")
	views := []subuserView{}
	for _, a := range all {
		if a.Kind == account.KindSubuser && (name == "" || a.Username == name) {
			view := viewSubuser(a)
			view.Region = region
			views = append(views, view)
		}
	}
	return rest.Cut(views, limit, offset), nil
}

func (s *server) createSubuser(r *rest.Request, o *rest.Object) (any, error) {
	a, region, err := s.readSubuser(o)
	if err != nil {
		return nil, err
	}
	exists := rest.InvalidField("username", "username exists")
	if a.Username == r.On.Username {
		return nil, exists // on-behalf-of could not tell the two apart
	}
	a, err = s.addAccount(r, a)
	switch {
	case errors.Is(err, account.ErrExists):
		return nil, exists
	case errors.Is(err, account.ErrTooMany):
		text := "Cannot create more than " + strconv.Itoa(account.MaxAccounts) + " subusers"
		return nil, rest.Worded(http.StatusForbidden, text, rest.AboutField("", text)).At(boundSubusers)
	case err != nil:
		return nil, err
	}
	return newSubuserView{a.Username, numericID(a), a.Email, region, allocation{"unlimited"}}, nil
}

// readSubuser reads the documented fields, and gives the region to show. Nobody reads
// the password: there is nothing to log in to.
func (s *server) readSubuser(o *rest.Object) (a account.Account, region string, err error) {
	a.Kind = account.KindSubuser
	if o.Len() == 0 {
		return a, "", rest.InvalidField("", "no fields provided")
	}
	readUsername(o, "username", &a)
	readEmail(o, &a)
	region, include := theRegion, false
	if o.TextOrNull("region", 64, &region); region != theRegion && region != "" {
		o.Wrong("region", badRegion)
	}
	o.Bool("include_region", &include)
	if o.Raw("ips") != "null" {
		var ips []string
		o.Texts("ips", &ips)
		s.checkIPs(o, ips)
	}
	if !include {
		return a, "", o.Err()
	}
	return a, theRegion, o.Err()
}

// checkIPs refuses addresses that a subuser's mail cannot come from. Where none are
// configured, the system chooses them, and a NAT may change them: then any address
// may be right.
func (s *server) checkIPs(o *rest.Object, ips []string) {
	for _, text := range ips {
		addr, err := netip.ParseAddr(text)
		switch {
		case err != nil || addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast():
			o.Wrong("ips", "ips must be IP addresses")
		case len(s.SourceAddresses) > 0 && !slices.Contains(s.SourceAddresses, addr.Unmap()):
			o.Wrong("ips", "ips must be among the addresses that this relay sends from")
		default:
			continue
		}
		return
	}
}

// putSubuserIPs accepts the addresses that a subuser's mail comes from anyway. It
// changes nothing: a subuser cannot choose among them.
func (s *server) putSubuserIPs(r *rest.Request, o *rest.Object) (any, error) {
	ips := []string{}
	o.Require("ips")
	o.Texts("ips", &ips)
	s.checkIPs(o, ips)
	if err := o.Err(); err != nil {
		return nil, err
	}
	a, err := s.findSubuser(r)
	if err != nil {
		return nil, err
	}
	view := subuserIPsView{ips}
	r.Audit("subuser ips set", a.Username, nil, view)
	return view, nil
}

func (s *server) findSubuser(r *rest.Request) (account.Account, error) {
	a, err := s.Accounts.AccountNamed(r.Context(), account.KindSubuser, r.PathValue("name"))
	if err == nil && a.Kind != account.KindSubuser {
		err = account.ErrNotFound // the parent shares its names with subusers
	}
	return a, err
}

func (s *server) getSubuser(r *rest.Request) (any, error) {
	region, err := queryRegion(r)
	if err != nil {
		return nil, err
	}
	a, err := s.findSubuser(r)
	if err != nil {
		return nil, err
	}
	view := viewSubuser(a)
	view.Region = region
	return view, nil
}

func (s *server) patchSubuser(r *rest.Request, o *rest.Object) (any, error) {
	if !o.Has("disabled") {
		return nil, rest.InvalidField("", "no fields provided")
	}
	var disabled bool
	o.Bool("disabled", &disabled)
	if err := o.Err(); err != nil {
		return nil, err
	}
	a, err := s.findSubuser(r)
	if err != nil {
		return nil, err
	}
	_, err = s.changeAccount(r, a.ID, func(a *account.Account) error {
		a.Disabled = disabled
		return nil
	})
	return nil, err
}

func (s *server) deleteSubuser(r *rest.Request) (any, error) {
	a, err := s.findSubuser(r)
	if err != nil {
		return nil, err
	}
	return nil, s.endAccount(r, a)
}
