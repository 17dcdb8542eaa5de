package api

import (
	"errors"
	"net/http"
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
	}
	newSubuserView struct {
		Username string     `json:"username"`
		UserID   int64      `json:"user_id"`
		Email    string     `json:"email"`
		Credits  allocation `json:"credit_allocation"`
	}
	allocation struct {
		Type string `json:"type"`
	}
)

func viewSubuser(a account.Account) subuserView {
	return subuserView{a.Disabled, numericID(a), a.Username, a.Email}
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
	all, err := s.Accounts.Accounts(r.Context())
	if err != nil {
		return nil, err
	}
	name := r.URL.Query().Get("username")
	views := []subuserView{}
	for _, a := range all {
		if a.Kind == account.KindSubuser && (name == "" || a.Username == name) {
			views = append(views, viewSubuser(a))
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
	a, err := readSubuser(o)
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
	case err != nil:
		return nil, err
	}
	s.audit(r, "subuser created", a.Username, nil, viewSubuser(a))
	return newSubuserView{a.Username, numericID(a), a.Email, allocation{"unlimited"}}, nil
}

// readSubuser reads the documented fields. There is nothing to log in to, so
// the password is looked at by nobody; neither are ips.
func readSubuser(o *object) (account.Account, error) {
	a := account.Account{Kind: account.KindSubuser}
	if len(o.raw) == 0 {
		return a, invalidField("", "no fields provided")
	}
	o.text("username", 64, &a.Username)
	o.text("email", 254, &a.Email)
	if len(o.faults) == 0 && !validUsername(a.Username) {
		o.refuse("username", "invalid username")
	}
	if a.Email != "" && strings.Count(a.Email, "@") == 0 {
		o.refuse("email", "invalid email")
	}
	return a, o.err()
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
	a, err := s.findSubuser(r)
	if err != nil {
		return nil, err
	}
	return viewSubuser(a), nil
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
