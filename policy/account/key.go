package account

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"
)

// Key is a stored API key. The secret itself is shown once, when it is made;
// what is kept is its hash.
type Key struct {
	ID      string    `json:"id"` // the public middle part of the secret, 22 characters
	Hash    [32]byte  `json:"hash"`
	Name    string    `json:"name"`
	Owner   ID        `json:"owner"`
	Full    bool      `json:"full,omitempty"` // every scope, also those of later versions
	Scopes  []Scope   `json:"scopes,omitempty"`
	Created time.Time `json:"created"`
}

// ErrSecret is the error of a secret that does not have the form of one.
var ErrSecret = errors.New("an API key is SG.<22 characters>.<43 characters>")

// NewSecret makes a fresh secret: "SG.", 16 random bytes, ".", 32 random
// bytes, each in unpadded URL-safe base64: 69 characters, the form of SendGrid's
// keys. Its id does not begin with a dash, which `key revoke` would take for a flag.
func NewSecret() string {
	var b [48]byte
	enc := base64.RawURLEncoding
	for {
		rand.Read(b[:]) // never fails since Go 1.24
		if id := enc.EncodeToString(b[:16]); id[0] != '-' {
			return "SG." + id + "." + enc.EncodeToString(b[16:])
		}
	}
}

// SplitSecret checks the form of a secret and gives its public id and the
// hash to keep. The secret half has 256 random bits, so one round of SHA-256
// is enough: there is nothing to guess.
func SplitSecret(secret string) (id string, hash [32]byte, err error) {
	rest, ok := strings.CutPrefix(secret, "SG.")
	id, tail, found := strings.Cut(rest, ".")
	if !ok || !found || len(id) != 22 || len(tail) != 43 || !urlSafe(id) || !urlSafe(tail) {
		return "", hash, ErrSecret
	}
	return id, sha256.Sum256([]byte(secret)), nil
}

func urlSafe(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// Matches compares a hash with the stored one in constant time.
func (k Key) Matches(hash [32]byte) bool {
	return subtle.ConstantTimeCompare(k.Hash[:], hash[:]) == 1
}

// Allows reports whether the key has scope s.
func (k Key) Allows(s Scope) bool { return k.Full || slices.Contains(k.Scopes, s) }
