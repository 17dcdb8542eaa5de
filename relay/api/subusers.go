package api

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"tlsrelay/policy/account"
)

// The forms in which a subuser is shown (contract §3.2).
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

// theRegion is the one region that this relay has, by SendGrid's name for what
// is tied to none.
const theRegion = "global"

// queryRegion reads region and include_region of a query, and gives what to
// show.
func queryRegion(r *request) (shown string, err error) {
	q := r.URL.Query()
	if region := q.Get("region"); region != "" && region != theRegion && region != "all" {
		return "", badRegion()
	}
	text := q.Get("include_region")
	if text == "" {
		return "", nil
	}
	include, err := strconv.ParseBool(text) // some languages write True
	switch {
	case err != nil:
		return "", invalidField("include_region", "include_region must be a boolean")
	case include:
		return theRegion, nil
	}
	return "", nil
}

func badRegion() *fault {
	return invalidField("region", "region must be "+theRegion+": this relay has no other")
}

func numericID(a account.Account) int64 {
	n, err := strconv.ParseInt(string(a.ID), 10, 64)
	if err != nil {
		return 0 // ids are decimal; anything else is another program's
	}
	return n
}

// parentOnly refuses whoever has no subusers.
func parentOnly(r *request) error {
	if r.on.Kind != account.KindParent {
		return refused(http.StatusForbidden)
	}
	return nil
}

func (s *server) listSubusers(r *request) (any, error) {
	if err := parentOnly(r); err != nil {
		return nil, err
	}
	const noLimit = 1<<31 - 1
	limit, offset, err := r.page(noLimit, noLimit)
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
	return cut(views, limit, offset), nil
}

func (s *server) createSubuser(r *request) (any, error) {
	if err := parentOnly(r); err != nil {
		return nil, err
	}
	o, err := r.object(smallBody)
	if err != nil {
		return nil, err
	}
	a, region, err := s.readSubuser(o)
	if err != nil {
		return nil, err
	}
	exists := invalidField("username", "username exists")
	if a.Username == r.on.Username {
		return nil, exists // on-behalf-of could not tell the two apart
	}
	a.Created = s.Now()
	a, err = s.Accounts.CreateAccount(r.Context(), a)
	switch {
	case errors.Is(err, account.ErrExists):
		return nil, exists
	case errors.Is(err, account.ErrTooMany):
		text := "Cannot create more than " + strconv.Itoa(account.MaxAccounts) + " subusers"
		return nil, s.atBound(boundSubusers, worded(http.StatusForbidden, text, aboutField("", text)))
	case err != nil:
		return nil, err
	}
	s.audit(r, "subuser created", a.Username, nil, viewSubuser(a))
	return newSubuserView{a.Username, numericID(a), a.Email, region, allocation{"unlimited"}}, nil
}

// readSubuser reads the documented fields, and gives the region to show. There
// is nothing to log in to, so the password is looked at by nobody.
func (s *server) readSubuser(o *object) (a account.Account, region string, err error) {
	a.Kind = account.KindSubuser
	if len(o.raw) == 0 {
		return a, "", invalidField("", "no fields provided")
	}
	o.text("username", 64, &a.Username)
	o.text("email", 254, &a.Email)
	if len(o.faults) == 0 && !validUsername(a.Username) {
		o.refuse("username", "invalid username")
	}
	if a.Email != "" && strings.Count(a.Email, "@") == 0 {
		o.refuse("email", "invalid email")
	}
	region, include := theRegion, false
	if o.textOrNull("region", 64, &region); region != theRegion && region != "" {
		o.faults = append(o.faults, badRegion().fields...)
	}
	o.boolean("include_region", &include)
	if string(o.raw["ips"]) != "null" {
		var ips []string
		o.texts("ips", &ips)
		s.checkIPs(o, ips)
	}
	if !include {
		return a, "", o.err()
	}
	return a, theRegion, o.err()
}

// checkIPs refuses addresses that a subuser's mail cannot come from. Where none
// are configured, the system chooses them, and behind a NAT nobody here knows
// what others see: any address may be right then, and one is as good as another.
func (s *server) checkIPs(o *object, ips []string) {
	for _, text := range ips {
		addr, err := netip.ParseAddr(text)
		switch {
		case err != nil || addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast():
			o.refuse("ips", "ips must be IP addresses")
		case len(s.SourceAddresses) > 0 && !slices.Contains(s.SourceAddresses, addr.Unmap()):
			o.refuse("ips", "ips must be among the addresses that this relay sends from")
		default:
			continue
		}
		return
	}
}

// putSubuserIPs says yes to the addresses that a subuser's mail comes from
// anyway: which one of them a message takes is not the subuser's to choose.
func (s *server) putSubuserIPs(r *request) (any, error) {
	if err := parentOnly(r); err != nil {
		return nil, err
	}
	o, err := r.listOrObject(largeBody, "ips")
	if err != nil {
		return nil, err
	}
	ips := []string{}
	if !o.has("ips") {
		o.refuse("ips", "ips is required")
	}
	o.texts("ips", &ips)
	s.checkIPs(o, ips)
	if err := o.err(); err != nil {
		return nil, err
	}
	a, err := s.findSubuser(r)
	if err != nil {
		return nil, err
	}
	view := subuserIPsView{ips}
	s.audit(r, "subuser ips set", a.Username, nil, view)
	return view, nil
}

// validUsername keeps to characters that need no care in paths and headers.
// Without a space, no name can read as "account-id ID" (contract §2.4).
func validUsername(s string) bool {
	named := false
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			named = true
		case !strings.ContainsRune("._-+@", rune(c)):
			return false
		}
	}
	return named && len(s) <= 64 && !strings.EqualFold(s, "account-id")
}

func (s *server) findSubuser(r *request) (account.Account, error) {
	if err := parentOnly(r); err != nil {
		return account.Account{}, err
	}
	a, err := s.Accounts.AccountNamed(r.Context(), account.KindSubuser, r.PathValue("name"))
	if err == nil && a.Kind != account.KindSubuser {
		err = account.ErrNotFound // the parent shares its names with subusers
	}
	return a, err
}

func (s *server) getSubuser(r *request) (any, error) {
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

func (s *server) patchSubuser(r *request) (any, error) {
	if err := parentOnly(r); err != nil {
		return nil, err
	}
	o, err := r.object(smallBody)
	if err != nil {
		return nil, err
	}
	if !o.has("disabled") {
		return nil, invalidField("", "no fields provided")
	}
	var disabled bool
	o.boolean("disabled", &disabled)
	if err := o.err(); err != nil {
		return nil, err
	}
	a, err := s.findSubuser(r)
	if err != nil {
		return nil, err
	}
	before := a
	a, err = s.Accounts.UpdateAccount(r.Context(), a.ID, func(a *account.Account) error {
		before = *a
		a.Disabled = disabled
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.audit(r, "subuser changed", a.Username, viewSubuser(before), viewSubuser(a))
	return nil, nil
}

func (s *server) deleteSubuser(r *request) (any, error) {
	a, err := s.findSubuser(r)
	if err != nil {
		return nil, err
	}
	if err := s.Accounts.DeleteAccount(r.Context(), a.ID); err != nil {
		return nil, err
	}
	s.audit(r, "subuser deleted", a.Username, viewSubuser(a), nil)
	return nil, nil
}
