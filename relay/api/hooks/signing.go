package hooks

import (
	"tlsrelay/events/webhook"
	"tlsrelay/relay/api/rest"
)

// signingView says whether and by which key a webhook is signed; without
// signing the key is "".
type signingView struct {
	ID        string `json:"id"`
	PublicKey string `json:"public_key"`
}

func viewSigning(e webhook.Endpoint) (signingView, error) {
	key, err := publicKey(e)
	return signingView{e.ID, key}, err
}

func publicKey(e webhook.Endpoint) (string, error) {
	if len(e.SigningKey) == 0 {
		return "", nil
	}
	return webhook.PublicKey(e.SigningKey)
}

// GetSigning says by which key a webhook is signed.
func (s Calls) GetSigning(r *rest.Request) (any, error) {
	e, err := s.find(r)
	if err != nil {
		return nil, err
	}
	return viewSigning(e)
}

// GetOldestSigning is GetSigning of the oldest webhook.
func (s Calls) GetOldestSigning(r *rest.Request) (any, error) {
	e, _, err := s.oldest(r)
	if err != nil {
		return nil, err
	}
	return viewSigning(e)
}

// PatchSigning switches the signature of a webhook.
func (s Calls) PatchSigning(r *rest.Request) (any, error) {
	return s.setSigning(r, func(all []webhook.Endpoint) (webhook.Endpoint, error) {
		return withID(all, r.PathValue("id"))
	})
}

// PatchOldestSigning is PatchSigning of the oldest webhook.
func (s Calls) PatchOldestSigning(r *rest.Request) (any, error) {
	return s.setSigning(r, func(all []webhook.Endpoint) (webhook.Endpoint, error) {
		if len(all) == 0 {
			return webhook.Endpoint{}, NotFound()
		}
		return all[0], nil
	})
}

// setSigning switches signing. Switching it on again keeps the key pair, whose public
// half consumers have; switching it off forgets the pair.
func (s Calls) setSigning(r *rest.Request, find making) (any, error) {
	o, err := r.Object(rest.SmallBody)
	if err != nil {
		return nil, err
	}
	o.Require("enabled")
	var on bool
	o.Bool("enabled", &on)
	if err := o.Err(); err != nil {
		return nil, err
	}
	e, err := s.store(r, "webhook signing changed", func(all []webhook.Endpoint) (webhook.Endpoint, error) {
		e, err := find(all)
		if err != nil || on == (len(e.SigningKey) > 0) {
			return e, err
		}
		e.Updated, e.SigningKey = r.Now(), nil
		if on {
			e.SigningKey, err = webhook.NewSigningKey()
		}
		return e, err
	})
	if err != nil {
		return nil, err
	}
	return viewSigning(e)
}
